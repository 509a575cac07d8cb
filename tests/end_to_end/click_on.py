"""Clicking where a person would: in the middle of what is meant."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.masks import deepest_point
from refcut_backend.label_studio import brush_rle
from tests.end_to_end.editor import Editor


def click_in_the_middle(
    editor: Editor, part_hw: NDArray[np.bool_], *, negative: bool = False
) -> list[dict[str, Any]]:
    """Clicks in the middle of a part (H, W) of the open photograph; the regions that come back."""
    answer = editor.click_image(*fractions_of(part_hw), negative=negative)
    return list(answer["data"]["result"])


def fractions_of(part_hw: NDArray[np.bool_]) -> tuple[float, float]:
    """The middle of a part (H, W): x and y as fractions of width and height."""
    row, col = deepest_point(part_hw)
    height, width = part_hw.shape
    return (col + 0.5) / width, (row + 0.5) / height


def mask_of(region: dict[str, Any]) -> NDArray[np.bool_]:
    """The mask (H, W) of a brush region."""
    return brush_rle.decode(region["value"]["rle"], region["original_height"], region["original_width"])
