"""What makes a reference weak, seen from its masks alone."""

from __future__ import annotations

from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

SMALL_SHARE = 0.01
LARGE_SHARE = 0.9
SPECK_SHARE = 0.02
"""A part smaller than this share of the largest one is a slip of the brush, not a part."""


class Weakness(StrEnum):
    """A reason to look at a reference again, as the team lead reads it."""

    SMALL = "target is less than 1 % of the image"
    BORDER = "touches the image's border"
    LARGE = "covers nearly the whole image"
    PARTS = "several disconnected parts"
    NO_NEGATIVE = "nothing says what must stay out"
    NO_LABEL = "the label is no longer in the config"


def weaknesses(
    positive_hw: NDArray[np.bool_], negative_hw: NDArray[np.bool_] | None, *, label_in_config: bool = True
) -> tuple[Weakness, ...]:
    """What may make a reference with these masks (H, W) a weak one; empty when nothing does."""
    share = float(positive_hw.mean())
    edges = (positive_hw[0], positive_hw[-1], positive_hw[:, 0], positive_hw[:, -1])
    found = {
        Weakness.SMALL: share < SMALL_SHARE,
        Weakness.BORDER: any(edge.any() for edge in edges),
        Weakness.LARGE: share > LARGE_SHARE,
        Weakness.PARTS: _parts(positive_hw) > 1,
        Weakness.NO_NEGATIVE: negative_hw is None or not negative_hw.any(),
        Weakness.NO_LABEL: not label_in_config,
    }
    return tuple(weakness for weakness, applies in found.items() if applies)


def _parts(mask_hw: NDArray[np.bool_]) -> int:
    count, _, boxes, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    areas = boxes[1:count, cv2.CC_STAT_AREA]
    return int((areas >= SPECK_SHARE * areas.max()).sum()) if len(areas) else 0
