"""What the network is given, and the way back: rectangles of images, maps and masks as squares, clicks as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.geometry import Roi
from model.robot_clicker import Click

Resampling = Literal["aligned", "area"]


def crop_image(image_rgb: NDArray[np.uint8], roi: Roi, size_px: int, resampling: Resampling) -> Tensor:
    """The rectangle `roi` of an image (H, W, 3) uint8, squashed to a square: (1, 3, S, S) float in 0..1.

    resampling: "aligned" is SimpleClick's (bilinear, corners aligned, no antialias); "area" averages when shrinking.
    """
    pixels = np.ascontiguousarray(image_rgb[roi.slices])
    if resampling == "area":
        shrink = roi.height > size_px or roi.width > size_px
        how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        pixels = np.ascontiguousarray(cv2.resize(pixels, (size_px, size_px), interpolation=how))
    return _aligned(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, size_px)


def crop_map(map_hw: NDArray[np.float32], roi: Roi, size_px: int) -> Tensor:
    """The rectangle `roi` of a probability map (H, W) as (1, 1, S, S), resampled as SimpleClick does."""
    return _aligned(torch.from_numpy(np.ascontiguousarray(map_hw[roi.slices]))[None, None], size_px)


def paste_map(inside: Tensor, roi: Roi, height: int, width: int) -> NDArray[np.float32]:
    """The way back: a map of the network (1, 1, S, S) into the rectangle `roi` of a map (H, W), zero elsewhere."""
    resized = F.interpolate(inside, size=(roi.height, roi.width), mode="bilinear", align_corners=True)
    full = np.zeros((height, width), np.float32)
    full[roi.slices] = resized[0, 0].cpu().numpy()
    return full


def crop_mask(mask_hw: NDArray[np.bool_], roi: Roi, size_px: int) -> Tensor:
    """The rectangle `roi` of a mask (H, W) as shares (1, 1, S, S) of each pixel that it covers.

    One axis at a time: OpenCV averages only where both axes shrink, and a mask of one pixel must not vanish.
    """
    cut = np.ascontiguousarray(mask_hw[roi.slices], np.float32)
    for size in ((cut.shape[1], size_px), (size_px, size_px)):
        cut = cv2.resize(cut, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return torch.from_numpy(cut)[None, None]


def click_table(clicks_network: Sequence[Click]) -> Tensor:
    """Clicks in the network's frame as the network takes them: (1, 2K, 3), K positive slots, then K negative.

    A row is (row, column, order); free slots are -1.
    """
    signs = [[c for c in clicks_network if c.positive], [c for c in clicks_network if not c.positive]]
    slots = max(1, *(len(sign) for sign in signs))
    table = torch.full((1, 2 * slots, 3), -1.0)
    for half, sign in enumerate(signs):
        for place, click in enumerate(sign):
            table[0, half * slots + place] = torch.tensor([click.row, click.col, float(place)])
    return table


def _aligned(values: Tensor, size_px: int) -> Tensor:
    if values.shape[-2:] == (size_px, size_px):
        return values
    return F.interpolate(values, size=(size_px, size_px), mode="bilinear", align_corners=True)
