"""Box prompts for a network that has no input for boxes: it was trained on clicks and on the mask so far.

    the network gets              instead of the box
    mask so far                   the box, filled
    a positive click              its middle
    up to four negative clicks    beside its edges

Whatever the network finds outside the box is cut off. `python -m benchmarks.box_prompts` measures the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.transforms import expanded_box
from model.types import Box, Click

SURROUNDINGS = 3.0
"""Size of the crop that the network sees, relative to the box."""
BESIDE = 0.12
"""Distance of the negative clicks from the edges, as a share of the box."""
SLACK = 1.1
"""Size that a mask may have, relative to the box: boxes are drawn by hand."""


def box_surroundings(box: Box, height: int, width: int) -> Box:
    """The crop around a box, on an image of `height` x `width` pixels."""
    return expanded_box(box, height, width, expansion=SURROUNDINGS, min_crop_px=1)


def box_map(box: Box, height: int, width: int) -> NDArray[np.float32]:
    """The box as a probability map, float32 (height, width), 1 inside."""
    filled_hw = np.zeros((height, width), np.float32)
    filled_hw[box.slices] = 1
    return filled_hw


def box_clicks(box: Box, height: int, width: int) -> list[Click]:
    """Clicks that stand for a box: one in its middle, and negative ones beside its edges if they lie on the image."""
    row, col = 0.5 * (box.row_min + box.row_max), 0.5 * (box.col_min + box.col_max)
    above, left = BESIDE * box.height, BESIDE * box.width
    beside = [
        Click(box.row_min - above, col, False),
        Click(box.row_max + above, col, False),
        Click(row, box.col_min - left, False),
        Click(row, box.col_max + left, False),
    ]
    return [
        Click(row, col),
        *(click for click in beside if 0 <= click.row < height and 0 <= click.col < width),
    ]


def box_limits(box: Box, clicks: Sequence[Click], height: int, width: int) -> Box | None:
    """The area that the mask of a box may cover, slightly larger than the box.

    Args:
        box: The box in image pixels.
        clicks: Clicks of the user, in image pixels.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        The limits, or None if a positive click lies outside them: the box was then too small.
    """
    limits = expanded_box(box, height, width, expansion=SLACK, min_crop_px=1)
    row_end, col_end = limits.row_max + 1, limits.col_max + 1
    inside = all(
        limits.row_min <= click.row < row_end and limits.col_min <= click.col < col_end
        for click in clicks
        if click.positive
    )
    return limits if inside else None


def cut_off(map_hw: NDArray[np.float32], limits: Box) -> NDArray[np.float32]:
    """The map (H, W), set to zero outside the limits."""
    kept_hw = np.zeros_like(map_hw)
    kept_hw[limits.slices] = map_hw[limits.slices]
    return kept_hw
