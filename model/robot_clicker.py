"""The robot annotator of the literature: clicks the middle of the largest error (SimpleClick's clicker)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from model.array_types import BoolMask


@dataclass(frozen=True)
class Click:
    """A click in pixels of the image: row, column (float allowed), and whether it adds or takes away."""

    row: float
    col: float
    positive: bool = True


def distance_inside(mask_hw: BoolMask) -> NDArray[np.float32]:
    """Exact Euclidean distance of each pixel to the outside; the image's border counts as outside."""
    padded = np.pad(mask_hw.astype(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]  # type: ignore[return-value]


def deepest_point(mask_hw: BoolMask) -> tuple[int, int]:
    """(row, column) farthest from the mask's border; the first such in row-major order."""
    distance = distance_inside(mask_hw)
    row, col = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(row), int(col)


class RobotClicker:
    """Clicks on one target until told to stop. Never clicks a pixel twice.

    ignored pixels (`ignore_hw`) count neither as missed nor as too much.
    """

    def __init__(self, target_hw: BoolMask, ignore_hw: BoolMask | None = None) -> None:
        self._target = target_hw
        self._valid = np.ones_like(target_hw) if ignore_hw is None else ~ignore_hw
        self._free = np.ones_like(target_hw)

    def next_click(self, mask_hw: BoolMask) -> Click:
        """The click that follows the mask (H, W) shown now: positive iff the deepest miss is deeper than the deepest
        excess (a tie is negative)."""
        missed = distance_inside(self._target & ~mask_hw & self._valid) * self._free
        excess = distance_inside(~self._target & mask_hw & self._valid) * self._free
        positive = bool(missed.max() > excess.max())
        distance = missed if positive else excess
        row, col = np.unravel_index(int(distance.argmax()), distance.shape)
        self._free[row, col] = False
        return Click(float(row), float(col), positive)


def intersection_over_union(target_hw: BoolMask, mask_hw: BoolMask) -> float:
    """IoU of two masks; 1.0 when both are empty."""
    either = np.count_nonzero(target_hw | mask_hw)
    return np.count_nonzero(target_hw & mask_hw) / either if either else 1.0


def connected(first_hw: BoolMask, second_hw: BoolMask) -> bool:
    """Whether two parts touch: 8-neighbourhood."""
    grown = cv2.dilate(first_hw.astype(np.uint8), np.ones((3, 3), np.uint8))
    return bool(np.any((grown > 0) & second_hw))
