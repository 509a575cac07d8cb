"""Names for the arrays that pass through most of `model`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Click:
    """A click in pixels of the image: row, column (float allowed), and whether it adds or takes away."""

    row: float
    col: float
    positive: bool = True


BoolMask = NDArray[np.bool_]
"""A mask (H, W)."""
RgbImage = NDArray[np.uint8]
"""Pixels (H, W, 3)."""
