"""The robot annotator of the literature: clicks the middle of the largest error (SimpleClick's clicker)."""

from __future__ import annotations

import numpy as np

from model.masks import distance_inside
from model.types import BoolMask, Click


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
