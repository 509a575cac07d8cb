"""Masks in the frame of a smaller copy of their image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def fitted_mask(mask_hw: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """A mask (H, W) as (height, width): pixels that it covers by more than half."""
    if mask_hw.shape == (height, width):
        return mask_hw
    shares = cv2.resize(mask_hw.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return shares > 0.5
