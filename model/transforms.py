"""Every coordinate transform of the predictor: where the network looks, and where clicks fall in what it sees.

Frames: "image" is the photograph (row, column in pixels, origin top left); "network" is the square that the
network sees. Arithmetic is SimpleClick's ZoomIn (facts: section 2.2), rounding included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.types import Box, Click

EXPANSION = 1.4
MIN_CROP_PX = 200
RECOMPUTE_IOU = 0.5


def bounding_box(mask_hw: NDArray[np.bool_]) -> Box:
    """Tight rectangle round a mask (H, W) that is not empty."""
    rows, cols = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
    return Box(int(rows[0]), int(rows[-1]), int(cols[0]), int(cols[-1]))


def expanded_box(
    roi: Box, height: int, width: int, *, expansion: float = EXPANSION, min_crop_px: int = MIN_CROP_PX
) -> Box:
    """`roi` grown about its centre, at least `min_crop_px` each way, cut off at the image of height x width."""
    row_centre = 0.5 * (roi.row_min + roi.row_max)
    col_centre = 0.5 * (roi.col_min + roi.col_max)
    new_height = max(expansion * roi.height, min_crop_px)
    new_width = max(expansion * roi.width, min_crop_px)
    return Box(
        max(0, round(row_centre - 0.5 * new_height)),
        min(height - 1, round(row_centre + 0.5 * new_height)),
        max(0, round(col_centre - 0.5 * new_width)),
        min(width - 1, round(col_centre + 0.5 * new_width)),
    )


def box_overlap(first: Box, second: Box) -> float:
    """Product of the overlaps (IoU) of the row and of the column ranges."""
    return _range_iou((first.row_min, first.row_max), (second.row_min, second.row_max)) * _range_iou(
        (first.col_min, first.col_max), (second.col_min, second.col_max)
    )


def next_crop(
    mask_hw: NDArray[np.bool_],
    clicks: Sequence[Click],
    current: Box | None,
    *,
    min_crop_px: int = MIN_CROP_PX,
    expansion: float = EXPANSION,
) -> Box:
    """Where to look for the next click, given the mask so far (H, W) and all clicks (SimpleClick's ZoomIn).

    The rectangle in use is kept unless a positive click falls outside it or the wanted one differs much.
    """
    height, width = mask_hw.shape
    if not mask_hw.any():
        wanted = Box.whole(height, width)
    else:
        seen = mask_hw.copy()
        for click in clicks:
            if click.positive:
                seen[int(click.row), int(click.col)] = True
        box = bounding_box(seen)
        wanted = expanded_box(box, height, width, expansion=expansion, min_crop_px=min_crop_px)
    if current is None:
        return wanted
    outside = any(click.positive and not current.contains(click) for click in clicks)
    return wanted if outside or box_overlap(wanted, current) < RECOMPUTE_IOU else current


def clicks_to_network(clicks: Sequence[Click], roi: Box, size_px: int) -> list[Click]:
    """Clicks of the image frame in the network's frame of `size_px` squared; may lie outside it.

    SimpleClick's formula, which differs slightly from the aligned-corners resize of the pixels.
    """
    return [
        Click(
            size_px * (click.row - roi.row_min) / roi.height,
            size_px * (click.col - roi.col_min) / roi.width,
            click.positive,
        )
        for click in clicks
    ]


def mirrored(clicks: Sequence[Click], width_px: int) -> list[Click]:
    """Clicks on the left-right mirrored image of that width; a place between two pixels stays between them."""
    return [Click(click.row, width_px - click.col - 1, click.positive) for click in clicks]


def _range_iou(first: tuple[int, int], second: tuple[int, int]) -> float:
    overlap = max(0, min(first[1], second[1]) - max(first[0], second[0]) + 1)
    span = max(first[1], second[1]) - min(first[0], second[0]) + 1
    return max(0.0, overlap / span)


Resampling = Literal["aligned", "area"]


def crop_image(image_rgb: NDArray[np.uint8], roi: Box, size_px: int, resampling: Resampling) -> Tensor:
    """The rectangle `roi` of an image (H, W, 3) uint8, squashed to a square: (1, 3, S, S) float in 0..1.

    resampling: "aligned" is SimpleClick's (bilinear, corners aligned, no antialias); "area" averages when shrinking.
    """
    pixels = np.ascontiguousarray(image_rgb[roi.slices])
    if resampling == "area":
        shrink = roi.height > size_px or roi.width > size_px
        how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        pixels = np.ascontiguousarray(cv2.resize(pixels, (size_px, size_px), interpolation=how))
    return _aligned(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, size_px)


def crop_map(map_hw: NDArray[np.float32], roi: Box, size_px: int) -> Tensor:
    """The rectangle `roi` of a probability map (H, W) as (1, 1, S, S), resampled as SimpleClick does."""
    return _aligned(torch.from_numpy(np.ascontiguousarray(map_hw[roi.slices]))[None, None], size_px)


def paste_map(inside: Tensor, roi: Box, height: int, width: int) -> NDArray[np.float32]:
    """The way back: a map of the network (1, 1, S, S) into the rectangle `roi` of a map (H, W), zero elsewhere."""
    resized = F.interpolate(inside, size=(roi.height, roi.width), mode="bilinear", align_corners=True)
    full = np.zeros((height, width), np.float32)
    full[roi.slices] = resized[0, 0].cpu().numpy()
    return full


def crop_mask(mask_hw: NDArray[np.bool_], roi: Box, size_px: int) -> Tensor:
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
