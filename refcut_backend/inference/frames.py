"""Between the frames of a click: percent of the image, pixels at which the network computes, pixels of the image."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from model.masks import clicked_pieces
from model.types import Box, Click, MaskResult
from refcut_backend.images.decode import full_size_mask
from refcut_backend.label_studio.prompts import PercentBox, PercentClick, to_pixel

MAP_PX = 320
"""Longest side of a probability map: at most 0.1 megabytes as PNG, whatever the photograph."""


def clicks_in_pixels(clicks: Sequence[PercentClick], height: int, width: int) -> list[Click]:
    """Convert clicks from percent to pixels.

    Args:
        clicks: Clicks in percent of the image, as Label Studio stores them.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Clicks in image pixels (row, col; origin top left).
    """
    return [
        Click(to_pixel(click.y_percent, height), to_pixel(click.x_percent, width), click.positive)
        for click in clicks
    ]


def box_in_pixels(box: PercentBox, height: int, width: int) -> Box:
    """Convert a box from percent to pixels.

    Args:
        box: Box in percent of the image, as Label Studio stores it.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        The pixels of which the box covers at least half, both ends inclusive; at least the pixel under its middle.
    """
    row, col = (
        int(to_pixel((start + end) / 2, length))
        for start, end, length in ((box.top, box.bottom, height), (box.left, box.right, width))
    )
    return Box(
        min(row, round(box.top / 100 * height)),
        max(row, round(box.bottom / 100 * height) - 1),
        min(col, round(box.left / 100 * width)),
        max(col, round(box.right / 100 * width) - 1),
    )


def mask_of_click(
    result: MaskResult, clicks: Sequence[Click] | None, size_hw: tuple[int, int], threshold: float
) -> NDArray[np.bool_]:
    """The mask of an answer in the frame of the image.

    Args:
        result: What the network gave, in the frame at which clicks are computed.
        clicks: Clicks in that frame; specks that nobody clicked on are dropped. None keeps every piece.
        size_hw: Height and width of the image in pixels.
        threshold: Probabilities above it are foreground.

    Returns:
        Mask (H, W).
    """
    probability_hw = result.probability_hw
    if clicks is not None:
        kept_hw = clicked_pieces(result.mask_hw, clicks)
        probability_hw = np.where(result.mask_hw & ~kept_hw, np.float32(0), probability_hw)
    return full_size_mask(probability_hw, *size_hw, threshold)


def map_png(probability_hw: NDArray[np.float32]) -> str:
    """A map of probabilities to look at.

    Args:
        probability_hw: (h, w) in 0..1.

    Returns:
        A grey PNG in base64, at most `MAP_PX` wide or high; white is 1.
    """
    scale = min(MAP_PX / max(probability_hw.shape), 1.0)
    height, width = (max(round(side * scale), 1) for side in probability_hw.shape)
    small_hw = cv2.resize(probability_hw, (width, height), interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".png", np.round(255 * small_hw).astype(np.uint8))
    assert ok, "OpenCV always writes PNG"
    return base64.b64encode(data.tobytes()).decode()
