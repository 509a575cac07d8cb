"""Worse references on purpose: coarse polygons for masks, and objects that are small on their photograph (Fig. 5)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from model.types import BoolMask, RgbImage


def as_polygons(mask_hw: BoolMask, max_vertices: int) -> BoolMask:
    """A mask (H, W) redrawn as one filled polygon a piece; holes are filled.

    max_vertices: corners of a polygon at most, from 4.
    """
    contours, _ = cv2.findContours(mask_hw.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(mask_hw.shape, np.uint8)
    for contour in contours:
        cv2.fillPoly(drawn, [_simplified(np.asarray(contour, np.int32), max_vertices)], 1)
    return drawn > 0


def _simplified(contour: NDArray[np.int32], max_vertices: int) -> NDArray[np.int32]:
    """Douglas and Peucker's polygon of a contour (N, 1, 2) that is closest to it with few enough corners."""
    low, high = 0.0, cv2.arcLength(contour, True)
    best = cv2.approxPolyDP(contour, high, True)
    for _ in range(16):
        middle = (low + high) / 2
        polygon = cv2.approxPolyDP(contour, middle, True)
        if len(polygon) <= max_vertices:
            best, high = polygon, middle
        else:
            low = middle
    if len(best) < 3 <= len(contour):
        best = cv2.boxPoints(cv2.minAreaRect(contour)).round()[:, None]
    return np.asarray(best, np.int32)


def shrunk_image(image: RgbImage, scale: float) -> RgbImage:
    """A photograph (H, W, 3) made smaller in the middle of a plain ground of its mean colour and old size."""
    ground = np.empty_like(image)
    ground[:] = image.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    ground[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return ground


def shrunk_mask(mask_hw: BoolMask, scale: float) -> BoolMask:
    """The mask (H, W) that belongs to `shrunk_image`. What covers less than half a pixel everywhere keeps its best."""
    height, width = mask_hw.shape
    size = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    small = cv2.resize(mask_hw.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    out = np.zeros_like(mask_hw)
    if mask_hw.any():
        out[top : top + size[1], left : left + size[0]] = small >= min(0.5, float(small.max()))
    return out
