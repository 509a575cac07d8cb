"""Converts masks to outlines, for label configs that take polygons or rectangles instead of brush masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
"""(N, 2) corners, N >= 3, as x, y in percent of the image. The first corner is not repeated at the end."""

MAX_CORNERS = 400
"""A polygon with more corners cannot be edited by hand and slows the editor down."""
EXACT_PIXELS = 6_000_000
"""Larger masks are outlined at a reduced size, because outlining needs four bytes per pixel."""


@dataclass(frozen=True)
class OutlineSettings:
    """How closely outlines follow masks.

    Attributes:
        tolerance_px: Largest distance in image pixels between the outline and the mask's edge. It grows if the outline
            would have more than MAX_CORNERS corners.
        min_area_percent: Pieces smaller than this percentage of the largest piece are omitted as specks.
        max_pieces: Number of pieces to keep, largest first.
    """

    tolerance_px: float = 1.0
    min_area_percent: float = 1.0
    max_pieces: int = 20


def mask_outlines(mask_hw: NDArray[np.bool_], settings: OutlineSettings) -> list[Outline]:
    """Outlines the connected pieces (8-neighbourhood) of a mask.

    Outlines run along the outer edges of pixels: a piece of one pixel gives a square, a full mask the image's border.
    Holes are not outlined, so they count as filled.

    Args:
        mask_hw: The mask, (H, W).
        settings: How closely outlines follow it.

    Returns:
        One outline per piece, the largest piece first; empty for an empty mask.
    """
    if not mask_hw.any():
        return []
    pieces = sorted(_pixel_edges(mask_hw), key=_area, reverse=True)[: settings.max_pieces]
    smallest = _area(pieces[0]) * settings.min_area_percent / 100
    in_percent = 100 / np.array(mask_hw.shape[::-1])
    return [_simplified(p, settings.tolerance_px) * in_percent for p in pieces if _area(p) >= smallest]


def _pixel_edges(mask_hw: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """Returns the outer edges of the pieces as x, y in pixels from the image's corner.

    OpenCV's contours connect pixel centres, so a thin piece would become a line. With every pixel enlarged to 2 x 2, a
    contour passes through the quarter of a pixel at the edge, which identifies the pixel's corner.
    """
    rows, cols = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
    top, left = int(rows[0]), int(cols[0])
    cut = mask_hw[top : rows[-1] + 1, left : cols[-1] + 1].astype(np.uint8)
    height, width = cut.shape
    coarse = math.ceil(math.sqrt(cut.size / EXACT_PIXELS))
    if coarse > 1:
        size = (math.ceil(width / coarse), math.ceil(height / coarse))
        cut = np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    scale = np.array([width / cut.shape[1], height / cut.shape[0]])
    quarters = np.repeat(np.repeat(cut, 2, axis=0), 2, axis=1)
    contours, _ = cv2.findContours(quarters, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((points[:, 0] + 1) // 2 * scale + (left, top)).astype(np.float32) for points in contours]


def _area(points: cv2.typing.MatLike) -> float:
    return cv2.contourArea(points)


def _simplified(points: NDArray[np.float32], tolerance_px: float) -> NDArray[np.float64]:
    """Simplifies an outline within the tolerance, but to at most MAX_CORNERS corners and without losing its area."""
    coarse = tolerance_px
    outline = cv2.approxPolyDP(points, coarse, closed=True)
    while len(outline) > MAX_CORNERS:
        coarse = 1.5 * max(coarse, 0.5)
        outline = cv2.approxPolyDP(points, coarse, closed=True)
    if len(outline) < 3 or _area(outline) < _area(points) / 2:
        outline = cv2.approxPolyDP(points, 0.1, closed=True)
    return outline[:, 0].astype(np.float64)
