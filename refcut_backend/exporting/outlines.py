"""Outlines masks exactly: polygons along the edges of pixels, with their holes.

Polygons in COCO and YOLO files have no holes. A ring around a hole is therefore joined to the ring around it by a cut of
no width, walked once in each direction:

    +-----------+
    |   +---+   |
    |   |   |   |
    +===+---+   |      === the cut: filling by the even-odd rule leaves the hole open
    |           |
    +-----------+
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""(N, 2) corners as x, y in pixels from the image's corner. The first corner is not repeated at the end."""


def mask_rings(mask_hw: NDArray[np.bool_], tolerance_px: float = 0.0) -> list[Ring]:
    """Outlines the connected pieces (8-neighbourhood) of a mask.

    Args:
        mask_hw: The mask, (H, W).
        tolerance_px: Largest distance in pixels between the outline and the mask's edge. At 0 the outline is exact:
            pycocotools turns it into the same mask again.

    Returns:
        One ring per piece, with its holes cut in; empty for an empty mask.
    """
    if not mask_hw.any():
        return []
    rows, cols = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
    top, left = int(rows[0]), int(cols[0])
    cut = mask_hw[top : rows[-1] + 1, left : cols[-1] + 1].astype(np.uint8)
    # OpenCV's contours connect pixel centres. With every pixel enlarged to 2 x 2, a contour passes through the quarter of
    # a pixel at its edge, which identifies the pixel's corner.
    quarters = np.repeat(np.repeat(cut, 2, axis=0), 2, axis=1)
    contours, hierarchy = cv2.findContours(quarters, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [_simplified((np.asarray(points[:, 0], np.int32) + 1) // 2, tolerance_px) for points in contours]
    pieces = []
    for number, (_, _, first_hole, parent) in enumerate(hierarchy[0]):
        if parent < 0:
            holes = _siblings(rings, hierarchy[0], int(first_hole))
            pieces.append(_joined([rings[number], *holes]) + np.array([left, top]))
    return pieces


def one_ring(rings: Iterable[Ring]) -> Ring:
    """Joins rings by cuts of no width to one, for formats that have one ring per object."""
    return _joined(list(rings))


def _siblings(rings: list[Ring], hierarchy: NDArray[np.int32], first: int) -> list[Ring]:
    found = []
    while first >= 0:
        found.append(rings[first])
        first = int(hierarchy[first][0])
    return found


def _joined(rings: list[Ring]) -> Ring:
    """Cuts each ring into the one before, between a corner of the ring and the corner nearest to it."""
    whole = rings[0]
    for ring in rings[1:]:
        at = int(np.argmin(((whole - ring[0]) ** 2).sum(axis=1)))
        whole = np.concatenate([whole[: at + 1], ring, ring[:1], whole[at:]])
    return whole


def _simplified(corners: NDArray[np.int32], tolerance_px: float) -> Ring:
    """Removes repeated corners, then those that the tolerance allows to remove, unless fewer than three would be left."""
    corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
    if tolerance_px > 0:
        coarse = np.asarray(cv2.approxPolyDP(corners[:, None], tolerance_px, closed=True), np.int32)
        corners = coarse[:, 0] if len(coarse) >= 3 else corners
    return corners.astype(np.float64)
