"""Masks as outlines, for configs that take polygons or rectangles instead of brush masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
"""(N, 2) corners as x, y in percent of the image, N >= 3, not closed: the first corner is not repeated."""

MAX_CORNERS = 400
"""With more, nobody can edit a polygon by hand, and the editor gets slow."""
EXACT_PIXELS = 6_000_000
"""Pieces of larger masks are outlined at a fraction of their size: the outlining needs four bytes a pixel."""


@dataclass(frozen=True)
class OutlineSettings:
    """How closely outlines follow masks.

    tolerance_px: farthest that an outline may leave the mask's, in pixels of the image; more if it would have too many
        corners. min_area_percent: pieces smaller than this, in percent of the largest piece, are left out as specks.
    max_pieces: so many of the largest pieces are kept.
    """

    tolerance_px: float = 1.0
    min_area_percent: float = 1.0
    max_pieces: int = 20


def mask_outlines(mask_hw: NDArray[np.bool_], settings: OutlineSettings) -> list[Outline]:
    """One outline for each piece (8-neighbourhood) of a mask (H, W), the largest first; none for an empty mask.

    Outlines run along the outer edges of the pixels: a piece of one pixel is a square, a full mask the image's border.
    Holes are not outlined, so they count as filled.
    """
    if not mask_hw.any():
        return []
    pieces = sorted(_pixel_edges(mask_hw), key=_area, reverse=True)[: settings.max_pieces]
    smallest = _area(pieces[0]) * settings.min_area_percent / 100
    in_percent = 100 / np.array(mask_hw.shape[::-1])
    return [_simplified(p, settings.tolerance_px) * in_percent for p in pieces if _area(p) >= smallest]


def _pixel_edges(mask_hw: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """Outer edges of the pieces in pixels, x and y from the image's corner; a pixel is one wide.

    OpenCV's contours join the centres of pixels, which would make a line of a thin piece. With every pixel as 2 x 2, a
    contour passes that quarter of a pixel which lies at the edge, and so says which of the pixel's corners is meant.
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
    """With few corners: as close as wanted, but never so coarse that nothing is left or so fine that it is too many."""
    coarse = tolerance_px
    outline = cv2.approxPolyDP(points, coarse, closed=True)
    while len(outline) > MAX_CORNERS:
        coarse = 1.5 * max(coarse, 0.5)
        outline = cv2.approxPolyDP(points, coarse, closed=True)
    if len(outline) < 3 or _area(outline) < _area(points) / 2:
        outline = cv2.approxPolyDP(points, 0.1, closed=True)
    return outline[:, 0].astype(np.float64)
