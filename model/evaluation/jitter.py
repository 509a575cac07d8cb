"""A robot whose hand is as unsteady as a person's."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from model.masks import distance_inside
from model.robot_clicker import RobotClicker
from model.types import BoolMask, Click

SPREAD = 0.5
"""Standard deviation of a click, as a share of how deep the middle of the error lies inside it."""
ATTEMPTS = 8


class UnsteadyClicker(RobotClicker):
    """Aims at the middle of the largest error and lands beside it, but on the error: people see what they click on."""

    def __init__(self, target_hw: BoolMask, rng: Generator) -> None:
        super().__init__(target_hw)
        self._rng = rng

    def next_click(self, mask_hw: BoolMask) -> Click:
        aimed = super().next_click(mask_hw)
        error = (self._target & ~mask_hw) if aimed.positive else (~self._target & mask_hw)
        middle = np.array([aimed.row, aimed.col])
        depth = float(distance_inside(error)[int(aimed.row), int(aimed.col)])
        for _ in range(ATTEMPTS):
            row, col = np.round(middle + self._rng.normal(0, SPREAD * depth, 2)).astype(int)
            inside = 0 <= row < error.shape[0] and 0 <= col < error.shape[1]
            if inside and error[row, col] and self._free[row, col]:
                self._free[int(aimed.row), int(aimed.col)] = True
                self._free[row, col] = False
                return Click(float(row), float(col), aimed.positive)
        return aimed
