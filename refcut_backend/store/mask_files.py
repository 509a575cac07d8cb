"""Masks as 1-bit PNG files: how the database keeps them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def mask_to_png(mask_hw: NDArray[np.bool_]) -> bytes:
    """Mask (H, W) as a 1-bit PNG file."""
    ok, data = cv2.imencode(".png", mask_hw.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert ok, "OpenCV always writes PNG"
    return data.tobytes()


def png_to_mask(data: bytes) -> NDArray[np.bool_]:
    """What `mask_to_png` wrote, as a mask (H, W)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return pixels > 127  # type: ignore[return-value, operator]
