"""Simulated clicks and boxes for training: first ones, and the iterative click simulation of SimpleClick.

- `first_click` and `jittered_box` draw what a person would begin with.
- `sample_points` draws the clicks that a sample of the paper's begins with (SimpleClick's `MultiPointSampler`).
- `add_next_clicks` adds one click per sample where the network's current mask is wrong (`get_next_points`).

Click tables hold rows (row, column, order), positive slots before negative ones; the order of an unused slot is -1.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from model.masks import bounding_box, deepest_point
from model.network.click_maps import ABSENT
from model.types import ROUND_SLOTS, BoolMask

SLOTS = 24
"""Most clicks of each sign that `sample_points` draws."""
GAMMA = 0.8
"""Each number of clicks is drawn this much less often than the number before."""
ERODE = 0.9
ERODED_PX = 3
ERODED_AT_LEAST_PX = 10
"""Positive clicks mostly keep this far from the border, if the target without it has more than this many pixels."""
BACKGROUND, OTHERS, BORDER = 0.1, 0.4, 0.5
"""Probability that a negative click falls outside all parts, on another part, or just outside the target."""
FIRST_ORDER = 100.0
_SQUARE = np.ones((3, 3), np.uint8)
NO_CLICK = np.full(2, ABSENT)
"""(row, column) of a click that is not there."""
NO_BOX = np.full(4, ABSENT, np.float32)
"""A box that is not there."""
BOX_JITTER = 0.05
"""Standard deviation of each side of a drawn box, as a share of the box's length across that side."""


def first_click(target_hw: BoolMask, rng: Generator) -> NDArray[np.float64]:
    """Draw where a person would click first: mostly near the middle of the largest piece, sometimes anywhere inside.

    Args:
        target_hw: The target (H, W), with at least one pixel.
        rng: Draws the pixel.

    Returns:
        (row, column) of a pixel of the target.
    """
    chance = rng.random()
    if chance < 0.45:
        point = np.asarray(deepest_point(target_hw), float)
        jittered = np.round(point + rng.normal(0, 0.01 * target_hw.shape[0], 2)).astype(int)
        jittered = jittered.clip(0, np.asarray(target_hw.shape) - 1)
        return jittered.astype(float) if target_hw[tuple(jittered)] else point
    if chance < 0.85:
        distance = cv2.distanceTransform(np.pad(target_hw.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        inside = np.argwhere(distance > distance.max() / 2)
    else:
        inside = np.argwhere(target_hw)
    pixel: NDArray[np.intp] = inside[rng.integers(len(inside))]
    return pixel.astype(float)


def jittered_box(target_hw: BoolMask, rng: Generator) -> NDArray[np.float32]:
    """Draw the box that a person would draw around a target: the tight one, each side a little off.

    Args:
        target_hw: The target (H, W), with at least one pixel.
        rng: Draws how far each side is off.

    Returns:
        (row_min, col_min, row_max, col_max) in pixels, both ends inclusive, within the mask; at least one pixel.
    """
    around = bounding_box(target_hw)
    tight = np.array([around.row_min, around.col_min, around.row_max, around.col_max], float)
    lengths = np.tile(tight[2:] - tight[:2] + 1, 2)
    last = np.tile(np.array(target_hw.shape) - 1, 2)
    box = np.clip(np.round(tight + rng.normal(0, BOX_JITTER, 4) * lengths), 0, last)
    box[2:] = np.maximum(box[:2], box[2:])
    return np.asarray(box, np.float32)


def sample_points(target_hw: BoolMask, others_hw: BoolMask, rng: Generator) -> NDArray[np.float32]:
    """Draw the clicks that a training sample begins with: at least one positive, any number of negative ones.

    Args:
        target_hw: The target (H, W), with at least one pixel.
        others_hw: Union of the other parts (H, W).
        rng: Draws everything random.

    Returns:
        Click table (48, 3), float32: 24 positive slots, then 24 negative ones; unused slots are -1.
    """
    table = np.full((2 * SLOTS, 3), ABSENT, np.float32)
    inside = np.argwhere(_inner(target_hw, rng))
    for slot in range(_count(1, rng)):
        table[slot] = [*inside[rng.integers(len(inside))], FIRST_ORDER]
    negatives = _count(0, rng)
    if negatives:
        sources = [
            np.argwhere(mask)
            for mask in (~(target_hw | others_hw), others_hw & ~target_hw, _border(target_hw))
        ]
        for slot in range(SLOTS, SLOTS + negatives):
            pixels = sources[rng.choice(3, p=(BACKGROUND, OTHERS, BORDER))]
            if len(pixels):
                table[slot] = [*pixels[rng.integers(len(pixels))], FIRST_ORDER]
    return table


def _count(fewest: int, rng: Generator) -> int:
    """Draw a number from `fewest` to 24, each GAMMA times as likely as the one before."""
    weights = GAMMA ** np.arange(SLOTS + 1 - fewest)
    return fewest + int(rng.choice(len(weights), p=weights / weights.sum()))


def _inner(target_hw: BoolMask, rng: Generator) -> BoolMask:
    if rng.random() >= ERODE:
        return target_hw
    eroded = cv2.erode(target_hw.astype(np.uint8), _SQUARE, iterations=ERODED_PX) > 0
    return eroded if eroded.sum() > ERODED_AT_LEAST_PX else target_hw


def _border(target_hw: BoolMask) -> BoolMask:
    """Pixels just outside the target; the border is a tenth of the root of its area wide."""
    width = math.ceil(0.1 * math.sqrt(float(target_hw.sum())))
    return (cv2.dilate(target_hw.astype(np.uint8), _SQUARE, iterations=width) > 0) & ~target_hw


WORK_PX = 112
"""Next clicks are searched on a mask of about this side: a full-size distance transform takes longer than a step."""
THRESHOLD = 0.49


def click_table(first_clicks_rc: Tensor) -> Tensor:
    """Make a click table with room for further clicks.

    Args:
        first_clicks_rc: First click of each sample as (row, column) (B, 2); (-1, -1) for none.

    Returns:
        Click table (B, 2 * ROUND_SLOTS, 3).
    """
    table = torch.full((len(first_clicks_rc), 2 * ROUND_SLOTS, 3), ABSENT)
    table[:, 0, :2] = first_clicks_rc
    table[:, 0, 2] = torch.where(first_clicks_rc[:, 0] >= 0, 0.0, ABSENT)
    return table


def add_next_clicks(
    table: Tensor, targets: NDArray[np.bool_], probability: NDArray[np.float32], index: int, rng: Generator
) -> NDArray[np.bool_]:
    """Add one click per sample to a click table, in place. A sample without an error keeps its clicks.

    The click falls into the region of `next_click_region`. The table is filled from the last slot of each sign backwards,
    because first clicks are at the front.

    Args:
        table: Click table (B, 2K, 3).
        targets: Targets (B, H, W).
        probability: Current probabilities (B, H, W), 0 to 1.
        index: Number of the click, from 1.
        rng: Draws the pixel within the region.

    Returns:
        The piece of the error that each click points at, at the `searched_pixels` of both sides (B, h, w); empty for a
        sample without an error.
    """
    slots = table.shape[1] // 2
    every = searched_pixels(targets.shape[1])
    offset = every.start
    pieces = np.zeros_like(targets[:, every, every])
    for sample, (target, guess) in enumerate(
        zip(targets[:, every, every], probability[:, every, every], strict=True)
    ):
        positive, region = next_click_region(target, guess)
        pixels = np.argwhere(region)
        if not len(pixels):
            continue
        pixel = pixels[rng.integers(len(pixels))]
        row, col = pixel * every.step + offset
        slot = (slots if positive else 2 * slots) - index
        table[sample, slot] = torch.tensor([float(row), float(col), float(index)])
        wrong = (target & (guess < THRESHOLD)) if positive else (~target & (guess > THRESHOLD))
        _, numbers = cv2.connectedComponents(wrong.astype(np.uint8), connectivity=8)
        pieces[sample] = numbers == numbers[tuple(pixel)]
    return pieces


def searched_pixels(size_px: int) -> slice:
    """The pixels of a side at which next clicks are searched, evenly spaced."""
    step = max(size_px // WORK_PX, 1)
    return slice(step // 2, None, step)


def next_click_region(
    target_hw: NDArray[np.bool_], probability_hw: NDArray[np.float32]
) -> tuple[bool, NDArray[np.bool_]]:
    """Find where the next click of training falls: the deeper half of the larger kind of error, as in SimpleClick.

    Args:
        target_hw: The target (H, W).
        probability_hw: Current probabilities (H, W), 0 to 1.

    Returns:
        Whether the click is positive, and the region that it falls into (H, W); empty if there is no error.
    """
    missed = _depth(target_hw & (probability_hw < THRESHOLD))
    excess = _depth(~target_hw & (probability_hw > THRESHOLD))
    positive = bool(missed.max() > excess.max())
    depth = missed if positive else excess
    return positive, depth > depth.max() / 2


def _depth(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    padded = np.pad(mask.astype(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]  # type: ignore[return-value]
