"""A box, said in what the network knows: it was trained on clicks and on the mask so far, and has no input for boxes.

The box counts as the mask so far, with a click in its middle and four clicks beside its edges that take away; what the
network then finds outside the box is cut off. What it is worth: `python -m benchmarks.box_prompts`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.transforms import expanded_box
from model.types import Box, Click

SURROUNDINGS = 3.0
"""How much larger than the box what the network sees is."""
BESIDE = 0.12
"""How far the negative clicks lie beyond the edges, as a share of the box."""
SLACK = 1.1
"""How much larger than the box a mask may be: boxes are drawn by hand."""


def box_surroundings(box: Box, height: int, width: int) -> Box:
    """Where to look for what is in a box, on an image of height x width."""
    return expanded_box(box, height, width, expansion=SURROUNDINGS, min_crop_px=1)


def box_map(box: Box, height: int, width: int) -> NDArray[np.float32]:
    """The box as a probability map (H, W)."""
    filled_hw = np.zeros((height, width), np.float32)
    filled_hw[box.slices] = 1
    return filled_hw


def box_clicks(box: Box, height: int, width: int) -> list[Click]:
    """The middle of the box, and what lies beside its edges as far as that is on the image."""
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
    """Beyond which nothing belongs to the mask; None when a click says that the box was too small."""
    limits = expanded_box(box, height, width, expansion=SLACK, min_crop_px=1)
    row_end, col_end = limits.row_max + 1, limits.col_max + 1
    inside = all(
        limits.row_min <= click.row < row_end and limits.col_min <= click.col < col_end
        for click in clicks
        if click.positive
    )
    return limits if inside else None


def cut_off(map_hw: NDArray[np.float32], limits: Box) -> NDArray[np.float32]:
    """The map (H, W), zero outside the limits."""
    kept_hw = np.zeros_like(map_hw)
    kept_hw[limits.slices] = map_hw[limits.slices]
    return kept_hw
