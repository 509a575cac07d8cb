"""A reference drawn on its photograph, for a person to look at."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

GREEN, RED, WHITE = (40, 200, 60), (230, 50, 40), (255, 255, 255)


def draw_reference(
    image_rgb: NDArray[np.uint8], positive_hw: NDArray[np.bool_], negative_hw: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """A copy of the image (H, W, 3) with the target outlined in green, and what must stay out in red.

    Masks of another size than the image are stretched onto it: the image was replaced after it was annotated.
    """
    out = image_rgb.copy()
    thickness = max(1, round(max(out.shape[:2]) / 400))
    for mask_hw, colour in ((negative_hw, RED), (positive_hw, GREEN)):
        if mask_hw is None:
            continue
        size = (out.shape[1], out.shape[0])
        on_image = cv2.resize(mask_hw.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(on_image, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, outlines, -1, WHITE, thickness + 2)
        cv2.drawContours(out, outlines, -1, colour, thickness)
    return out


def as_png(image_rgb: NDArray[np.uint8]) -> bytes:
    """RGB (H, W, 3) as a PNG file."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
    assert ok, "OpenCV always writes PNG"
    return data.tobytes()
