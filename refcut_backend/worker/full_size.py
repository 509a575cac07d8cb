"""From the probabilities of a working copy to the mask of the image itself."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

STEPS = 2**16 - 1


def full_size_mask(
    probability_hw: NDArray[np.float32], height: int, width: int, threshold: float
) -> NDArray[np.bool_]:
    """Probabilities (h, w) float32 in 0..1, all of them numbers, enlarged bilinearly and cut at a threshold, as a mask
    (H, W).

    In steps of 1/65535: that moves an outline by thousandths of a pixel, and 12 megapixels cost a third.
    """
    if probability_hw.shape == (height, width):
        return probability_hw > threshold
    steps_hw = (probability_hw * np.float32(STEPS) + np.float32(0.5)).astype(np.uint16)
    enlarged_hw = cv2.resize(steps_hw, (width, height), interpolation=cv2.INTER_LINEAR)
    mask_hw: NDArray[np.bool_] = enlarged_hw > round(threshold * STEPS)
    return mask_hw
