"""The clicks that a training sample begins with, as SimpleClick draws them (its MultiPointSampler; facts: section 3)."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from model.network.click_maps import ABSENT
from model.types import ROUND_SLOTS, BoolMask

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


def sample_points(target_hw: BoolMask, others_hw: BoolMask, rng: Generator) -> NDArray[np.float32]:
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


WORK_PX = 112
"""Next clicks are searched on a mask of about this size: the exact distance transform would cost more than a step."""
THRESHOLD = 0.49


def click_table(first_clicks_rc: Tensor) -> Tensor:
    """First clicks (B, 2) to a table (B, 2 * SLOTS, 3) with room for further ones; absent ones are -1."""
    table = torch.full((len(first_clicks_rc), 2 * ROUND_SLOTS, 3), ABSENT)
    table[:, 0, :2] = first_clicks_rc
    table[:, 0, 2] = torch.where(first_clicks_rc[:, 0] >= 0, 0.0, ABSENT)
    return table


def add_next_clicks(
    table: Tensor, targets: NDArray[np.bool_], probability: NDArray[np.float32], index: int, rng: Generator
) -> None:
    """Writes one more click a sample into the table, inside the deeper half of the larger kind of error.

    table: (B, 2K, 3), K positive slots before K negative ones; filled from the last slot of each sign backwards, since
        first clicks stand in front. index: number of the click, from 1.
    targets, probability: (B, H, W). A sample without an error keeps its clicks.
    """
    slots = table.shape[1] // 2
    step = max(targets.shape[1] // WORK_PX, 1)
    offset = step // 2
    for sample, (target, guess) in enumerate(zip(targets, probability, strict=True)):
        positive, region = next_click_region(
            target[offset::step, offset::step], guess[offset::step, offset::step]
        )
        places = np.argwhere(region)
        if not len(places):
            continue
        row, col = places[rng.integers(len(places))] * step + offset
        slot = (slots if positive else 2 * slots) - index
        table[sample, slot] = torch.tensor([float(row), float(col), float(index)])


def next_click_region(
    target_hw: NDArray[np.bool_], probability_hw: NDArray[np.float32]
) -> tuple[bool, NDArray[np.bool_]]:
    """Where SimpleClick lets the next click of training fall: the deeper half of the larger kind of error.

    Returns the click's sign and the region (H, W); it is empty where there is no error.
    """
    missed = _depth(target_hw & (probability_hw < THRESHOLD))
    excess = _depth(~target_hw & (probability_hw > THRESHOLD))
    positive = bool(missed.max() > excess.max())
    depth = missed if positive else excess
    return positive, depth > depth.max() / 2


def _depth(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    padded = np.pad(mask.astype(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]  # type: ignore[return-value]
