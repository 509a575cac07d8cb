"""Coordinate transforms of the predictor: which crop the network sees, and where clicks and masks lie in it.

    frame    unit    origin              used for
    image    pixels  top left of image   clicks, boxes, masks: everything that callers see
    network  pixels  top left of crop    the square input of the network, S x S

The arithmetic is SimpleClick's `ZoomIn` (isegm/inference/transforms/zoom_in.py), rounding included.
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

from model.masks import bounding_box
from model.types import Box, Click

EXPANSION = 1.4
"""Size of a crop, relative to the box around the mask."""
MIN_CROP_PX = 200
"""Smallest side of a crop, in image pixels."""
RECOMPUTE_IOU = 0.5
"""A crop is replaced if its overlap with the new one is smaller."""


def expanded_box(
    box: Box, height: int, width: int, *, expansion: float = EXPANSION, min_crop_px: int = MIN_CROP_PX
) -> Box:
    """Grow a box around its centre.

    Args:
        box: A box on the image.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        expansion: Size relative to `box`.
        min_crop_px: Smallest side in pixels.

    Returns:
        The grown box, cut off at the image's border.
    """
    row_centre = 0.5 * (box.row_min + box.row_max)
    col_centre = 0.5 * (box.col_min + box.col_max)
    new_height = max(expansion * box.height, min_crop_px)
    new_width = max(expansion * box.width, min_crop_px)
    return Box(
        max(0, round(row_centre - 0.5 * new_height)),
        min(height - 1, round(row_centre + 0.5 * new_height)),
        max(0, round(col_centre - 0.5 * new_width)),
        min(width - 1, round(col_centre + 0.5 * new_width)),
    )


def box_overlap(first: Box, second: Box) -> float:
    """Product of the overlaps (IoU) of the rows and of the columns of two boxes, 0..1."""
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
    """The crop for the next click (SimpleClick's ZoomIn).

    Args:
        mask_hw: The mask so far, bool (H, W).
        clicks: All clicks, in image pixels.
        current: The crop in use; it is kept unless a positive click lies outside it or the new crop differs much.
            None: there is none yet.
        min_crop_px: Smallest side of a new crop, in image pixels.
        expansion: Size of a new crop, relative to the box around the mask and the positive clicks.
    """
    height, width = mask_hw.shape
    if not mask_hw.any():
        new_crop = Box.whole(height, width)
    else:
        seen = mask_hw.copy()
        for click in clicks:
            if click.positive:
                seen[int(click.row), int(click.col)] = True
        box = bounding_box(seen)
        new_crop = expanded_box(box, height, width, expansion=expansion, min_crop_px=min_crop_px)
    if current is None:
        return new_crop
    outside = any(click.positive and not current.contains(click) for click in clicks)
    return new_crop if outside or box_overlap(new_crop, current) < RECOMPUTE_IOU else current


def clicks_to_network(clicks: Sequence[Click], crop: Box, size_px: int) -> list[Click]:
    """Clicks from the image frame to the network frame. They may lie outside it.

    This is SimpleClick's formula. It differs slightly from the aligned-corners resize of the pixels.

    Args:
        clicks: Clicks in image pixels.
        crop: The crop that the network sees.
        size_px: Side of the network's input.
    """
    return [
        Click(
            size_px * (click.row - crop.row_min) / crop.height,
            size_px * (click.col - crop.col_min) / crop.width,
            click.positive,
        )
        for click in clicks
    ]


def box_to_network(box: Box | None, crop: Box, size_px: int) -> Tensor:
    """A box from the image frame to the network frame, as `model.network.click_maps.box_maps` takes it.

    Args:
        box: A box in image pixels; None means no box.
        crop: The crop that the network sees.
        size_px: Side of the network's input.

    Returns:
        (1, 4) float: first row, first column, last row, last column. All -1 without a box.
    """
    if box is None:
        return torch.full((1, 4), -1.0)
    corners = clicks_to_network(
        [Click(box.row_min, box.col_min), Click(box.row_max, box.col_max)], crop, size_px
    )
    return torch.tensor([[coordinate for corner in corners for coordinate in (corner.row, corner.col)]])


def mirrored(clicks: Sequence[Click], width_px: int) -> list[Click]:
    """Clicks on the left-right mirrored image.

    Args:
        clicks: Clicks in pixels of an image of that width.
        width_px: Width of the image. A position between two pixels stays between them.
    """
    return [Click(click.row, width_px - click.col - 1, click.positive) for click in clicks]


def _range_iou(first: tuple[int, int], second: tuple[int, int]) -> float:
    overlap = max(0, min(first[1], second[1]) - max(first[0], second[0]) + 1)
    span = max(first[1], second[1]) - min(first[0], second[0]) + 1
    return max(0.0, overlap / span)


Resampling = Literal["aligned", "area"]


def crop_image(image_rgb: NDArray[np.uint8], crop: Box, size_px: int, resampling: Resampling) -> Tensor:
    """Cut a crop out of an image and resize it to the network's input.

    Args:
        image_rgb: RGB image (H, W, 3), uint8.
        crop: The part to cut out; it is squashed to a square.
        size_px: Side S of the network's input.
        resampling: "aligned" is SimpleClick's (bilinear, corners aligned, no antialias). "area" averages when shrinking.

    Returns:
        (1, 3, S, S) float in 0..1.
    """
    pixels = np.ascontiguousarray(image_rgb[crop.slices])
    if resampling == "area":
        shrink = crop.height > size_px or crop.width > size_px
        how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        pixels = np.ascontiguousarray(cv2.resize(pixels, (size_px, size_px), interpolation=how))
    return _aligned(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, size_px)


def crop_map(map_hw: NDArray[np.float32], crop: Box, size_px: int) -> Tensor:
    """Cut a crop out of a probability map (H, W) and resize it as SimpleClick does, to (1, 1, S, S)."""
    return _aligned(torch.from_numpy(np.ascontiguousarray(map_hw[crop.slices]))[None, None], size_px)


def paste_map(inside: Tensor, crop: Box, height: int, width: int) -> NDArray[np.float32]:
    """Put a map of the network back into the image frame: the inverse of `crop_map`.

    Args:
        inside: (1, 1, S, S).
        crop: The crop that the network saw.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        float32 (height, width), zero outside the crop.
    """
    resized = F.interpolate(inside, size=(crop.height, crop.width), mode="bilinear", align_corners=True)
    full = np.zeros((height, width), np.float32)
    full[crop.slices] = resized[0, 0].cpu().numpy()
    return full


def crop_mask(mask_hw: NDArray[np.bool_], crop: Box, size_px: int) -> Tensor:
    """Cut a crop out of a mask and resize it to the share of each pixel that the mask covers.

    One axis is resized at a time: OpenCV averages only if both axes shrink, and a mask of one pixel must not disappear.

    Args:
        mask_hw: Mask, bool (H, W).
        crop: The part to cut out.
        size_px: Side S of the network's input.

    Returns:
        (1, 1, S, S) in 0..1.
    """
    cut = np.ascontiguousarray(mask_hw[crop.slices], np.float32)
    for size in ((cut.shape[1], size_px), (size_px, size_px)):
        cut = cv2.resize(cut, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return torch.from_numpy(cut)[None, None]


def click_table(clicks_network: Sequence[Click]) -> Tensor:
    """Clicks as the network takes them.

    Args:
        clicks_network: Clicks in the network frame.

    Returns:
        (1, 2K, 3): K rows for positive clicks, then K for negative ones. A row is (row, column, order); free rows are -1.
    """
    signs = [[c for c in clicks_network if c.positive], [c for c in clicks_network if not c.positive]]
    slots = max(1, *(len(sign) for sign in signs))
    table = torch.full((1, 2 * slots, 3), -1.0)
    for half, sign in enumerate(signs):
        for slot, click in enumerate(sign):
            table[0, half * slots + slot] = torch.tensor([click.row, click.col, float(slot)])
    return table


def _aligned(values: Tensor, size_px: int) -> Tensor:
    if values.shape[-2:] == (size_px, size_px):
        return values
    return F.interpolate(values, size=(size_px, size_px), mode="bilinear", align_corners=True)
