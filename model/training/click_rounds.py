"""Iterative clicks during training: the network sees its own mistakes and clicks on them (SimpleClick section 3)."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from model.network.click_maps import ABSENT

SLOTS = 8
"""Clicks of each sign in a table of `click_table`."""
WORK_PX = 112
"""Next clicks are searched on a mask of about this size: the exact distance transform would cost more than a step."""
THRESHOLD = 0.49


def click_table(first_clicks_rc: Tensor) -> Tensor:
    """First clicks (B, 2) to a table (B, 2 * SLOTS, 3) with room for further ones; absent ones are -1."""
    table = torch.full((len(first_clicks_rc), 2 * SLOTS, 3), ABSENT)
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
