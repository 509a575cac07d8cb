"""A mask and its clicks drawn on the photograph, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from model.types import Click

GREEN, RED, BLUE = (40, 200, 60), (230, 50, 40), (50, 110, 240)
TINT = 0.5


def draw_overlay(
    image_rgb: NDArray[np.uint8], mask_hw: NDArray[np.bool_], clicks: Sequence[Click]
) -> NDArray[np.uint8]:
    """A copy of the image (H, W, 3): the mask (H, W) blue and outlined, positive clicks green, negative ones red."""
    tinted = image_rgb.astype(np.float32)
    tinted[mask_hw] = (1 - TINT) * tinted[mask_hw] + TINT * np.array(BLUE, np.float32)
    out = tinted.round().astype(np.uint8)
    outlines, _ = cv2.findContours(mask_hw.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, outlines, -1, (255, 255, 255), 1)
    radius = max(3, round(max(out.shape[:2]) / 80))
    for click in clicks:
        place = round(click.col), round(click.row)
        cv2.circle(out, place, radius + 2, (255, 255, 255), -1)
        cv2.circle(out, place, radius, GREEN if click.positive else RED, -1)
    return out
