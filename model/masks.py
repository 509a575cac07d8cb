"""Masks as the COCO run lengths in which scenes keep them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from model.types import BoolMask


def distance_inside(mask_hw: BoolMask) -> NDArray[np.float32]:
    """Exact Euclidean distance of each pixel to the outside; the image's border counts as outside."""
    padded = np.pad(mask_hw.astype(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]  # type: ignore[return-value]


def deepest_point(mask_hw: BoolMask) -> tuple[int, int]:
    """(row, column) farthest from the mask's border; the first such in row-major order."""
    distance = distance_inside(mask_hw)
    row, col = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(row), int(col)


def intersection_over_union(target_hw: BoolMask, mask_hw: BoolMask) -> float:
    """IoU of two masks; 1.0 when both are empty."""
    either = np.count_nonzero(target_hw | mask_hw)
    return np.count_nonzero(target_hw & mask_hw) / either if either else 1.0


def connected(first_hw: BoolMask, second_hw: BoolMask) -> bool:
    """Whether two parts touch: 8-neighbourhood."""
    grown = cv2.dilate(first_hw.astype(np.uint8), np.ones((3, 3), np.uint8))
    return bool(np.any((grown > 0) & second_hw))


def union(masks: Iterable[BoolMask]) -> BoolMask:
    """The union of at least one mask (H, W)."""
    joined: BoolMask = np.logical_or.reduce(list(masks))
    return joined


def encode(mask_hw: BoolMask) -> dict[str, Any]:
    """A mask (H, W) as compressed COCO RLE; `counts` is text, so that it can be written as JSON."""
    rle = coco_mask.encode(np.asfortranarray(mask_hw.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def decode(rle: dict[str, Any]) -> BoolMask:
    """The mask (H, W) of an RLE."""
    return coco_mask.decode(rle).astype(bool)  # type: ignore[no-any-return]
