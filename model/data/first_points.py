"""The clicks that a training sample begins with, as SimpleClick draws them (its MultiPointSampler; facts: section 3)."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.network.click_maps import ABSENT
from model.types import BoolMask

SLOTS = 24
"""At most so many clicks of each sign."""
GAMMA = 0.8
"""Each further click is so often drawn as the one before."""
ERODE = 0.9
ERODED_PX = 3
ERODED_AT_LEAST_PX = 10
"""Positive clicks mostly keep off the border, where something is left without it."""
BACKGROUND, OTHERS, BORDER = 0.1, 0.4, 0.5
"""Where a negative click falls: outside all parts, on another part, or just outside the target."""
FIRST_ORDER = 100.0
_SQUARE = np.ones((3, 3), np.uint8)


def first_points(target_hw: BoolMask, others_hw: BoolMask, rng: Generator) -> NDArray[np.float32]:
    """Rows (row, column, order) of a table (48, 3): 24 positive slots, then 24 negative; free ones are -1.

    target_hw: (H, W) with at least one pixel. others_hw: (H, W) parts that are not meant.
    """
    table = np.full((2 * SLOTS, 3), ABSENT, np.float32)
    inside = _places(_inner(target_hw, rng))
    for slot in range(_count(1, rng)):
        table[slot] = [*inside[rng.integers(len(inside))], FIRST_ORDER]
    negatives = _count(0, rng)
    if negatives:
        sources = [
            _places(mask) for mask in (~(target_hw | others_hw), others_hw & ~target_hw, _border(target_hw))
        ]
        for slot in range(SLOTS, SLOTS + negatives):
            places = sources[rng.choice(3, p=(BACKGROUND, OTHERS, BORDER))]
            if len(places):
                table[slot] = [*places[rng.integers(len(places))], FIRST_ORDER]
    return table


def _count(fewest: int, rng: Generator) -> int:
    """From `fewest` to 24, each number GAMMA times as likely as the one before."""
    weights = GAMMA ** np.arange(SLOTS + 1 - fewest)
    return fewest + int(rng.choice(len(weights), p=weights / weights.sum()))


def _inner(target_hw: BoolMask, rng: Generator) -> BoolMask:
    if rng.random() >= ERODE:
        return target_hw
    eroded = cv2.erode(target_hw.astype(np.uint8), _SQUARE, iterations=ERODED_PX) > 0
    return eroded if eroded.sum() > ERODED_AT_LEAST_PX else target_hw


def _border(target_hw: BoolMask) -> BoolMask:
    """Pixels just outside the target, as wide as a tenth of the root of its area."""
    width = math.ceil(0.1 * math.sqrt(float(target_hw.sum())))
    return (cv2.dilate(target_hw.astype(np.uint8), _SQUARE, iterations=width) > 0) & ~target_hw


def _places(mask_hw: BoolMask) -> NDArray[np.intp]:
    return np.argwhere(mask_hw)
