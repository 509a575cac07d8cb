"""Names for the arrays that pass through most of `model`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BoolMask = NDArray[np.bool_]
"""A mask (H, W)."""
RgbImage = NDArray[np.uint8]
"""Pixels (H, W, 3)."""
