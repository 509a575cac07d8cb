"""The default augmentation ("zoomed"): crop, squash to a square, flip, small rotation, colour.

It follows what the predictor sees: a whole image squashed to a square, or a zoom on one part. SimpleClick's augmentation
is in `model.data.augment_simpleclick`. Both return a `Crop`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.masks import bounding_box
from model.types import BoolMask, RgbImage

WHOLE_SHARE = 0.6
"""Share of the crops without zoom that show the whole image, as references and first clicks do."""
MIN_VISIBLE_SHARE = 0.2
"""A part of which a smaller share lies in a crop is no target there, because it cannot be recognised."""


@dataclass(frozen=True)
class Crop:
    """A square piece of an image, as the network sees it in training.

    Attributes:
        image: RGB (S, S, 3), uint8.
        masks: Masks (S, S) by name of the part; only parts that are visible in this crop.
        rests: Masks (S, S) of parts of which too little lies in this crop to be recognised.
    """

    image: RgbImage
    masks: dict[str, BoolMask]
    rests: dict[str, BoolMask] = field(default_factory=dict)


Augmentation = Callable[[RgbImage, dict[str, BoolMask], int, Generator, str | None], Crop]
"""Makes a crop from image, masks, size, random generator and name of the part to zoom in on; see `augment_zoomed`."""


def augment_zoomed(
    image: RgbImage, masks: dict[str, BoolMask], size_px: int, rng: Generator, zoom_part: str | None
) -> Crop:
    """Make a random crop of an image.

    Args:
        image: RGB (H, W, 3), uint8.
        masks: Masks (H, W) by name of the part.
        size_px: Side of the crop.
        rng: Draws everything random.
        zoom_part: Name of a part to crop around, as the predictor does after the first click. None takes the whole image
            or a random rectangle.
    """
    top, bottom, left, right = _rectangle(image.shape[0], image.shape[1], masks, rng, zoom_part)
    rotation = _rotation(size_px, rng) if rng.random() < 0.3 else None
    flip = rng.random() < 0.5

    def to_crop(pixels: NDArray[np.uint8], *, mask: bool) -> NDArray[np.uint8]:
        cut = pixels[top:bottom, left:right]
        shrink = cut.shape[0] > size_px or cut.shape[1] > size_px
        interpolation = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        out = cv2.resize(cut, (size_px, size_px), interpolation=interpolation)
        if rotation is not None:
            out = cv2.warpAffine(
                out,
                rotation,
                (size_px, size_px),
                borderMode=cv2.BORDER_CONSTANT if mask else cv2.BORDER_REFLECT,
            )
        return out[:, ::-1] if flip else out  # type: ignore[return-value]

    visible: dict[str, BoolMask] = {}
    rests: dict[str, BoolMask] = {}
    crop_scale = size_px * size_px / ((bottom - top) * (right - left))
    for name, mask_hw in masks.items():
        if not mask_hw[top:bottom, left:right].any():
            continue
        whole_area = float(np.count_nonzero(mask_hw))
        seen = np.ascontiguousarray(to_crop(mask_hw.view(np.uint8) * 255, mask=True) > 127)
        area = float(np.count_nonzero(seen))
        if area >= 24 * (size_px / 224) ** 2 and area >= MIN_VISIBLE_SHARE * whole_area * crop_scale:
            visible[name] = seen
        elif area:
            rests[name] = seen
    return Crop(_colour(to_crop(image, mask=False), rng), visible, rests)


def _rectangle(
    height: int, width: int, masks: dict[str, BoolMask], rng: Generator, zoom_part: str | None
) -> tuple[int, int, int, int]:
    """top, bottom, left, right (exclusive ends)."""
    if zoom_part is not None:
        box = bounding_box(masks[zoom_part])
        extent = np.array([box.height, box.width], float)
        centre = np.array([box.row_min, box.col_min]) + extent / 2
        extent = np.maximum(extent * rng.uniform(1.2, 2.8), min(80, height, width))
        centre += rng.uniform(-0.15, 0.15, 2) * extent
    elif rng.random() < WHOLE_SHARE:
        return 0, height, 0, width
    else:
        extent = np.array([height, width]) * rng.uniform(0.5, 1.0) * np.exp(rng.uniform(-0.15, 0.15, 2))
        centre = np.array([height, width]) * rng.uniform(0.3, 0.7, 2)
    start = np.clip(np.round(centre - extent / 2), 0, None).astype(int)
    end = np.minimum(np.round(centre + extent / 2).astype(int), [height, width])
    start = np.minimum(start, end - 16).clip(0)
    return int(start[0]), int(end[0]), int(start[1]), int(end[1])


def _rotation(size_px: int, rng: Generator) -> NDArray[np.float64]:
    centre = (size_px - 1) / 2
    return cv2.getRotationMatrix2D((centre, centre), float(rng.uniform(-15, 15)), 1.0)  # type: ignore[return-value]


def _colour(image: NDArray[np.uint8], rng: Generator) -> RgbImage:
    """Change brightness and contrast, shift each channel, and sometimes make it grey."""
    out = image.astype(np.float32)
    if rng.random() < 0.75:
        out = out * rng.uniform(0.75, 1.3) + rng.uniform(-40, 40)
    if rng.random() < 0.5:
        out += rng.uniform(-12, 12, 3).astype(np.float32)
    if rng.random() < 0.05:
        out = np.repeat(out.mean(axis=2, keepdims=True), 3, axis=2)
    return np.clip(out, 0, 255).astype(np.uint8)
