"""Random views of a scene for training: crop, squash to a square, flip, small rotation, colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.types import BoolMask, RgbImage

WHOLE_SHARE = 0.6
"""Of views that are not close up, so many show the whole photograph: references are given so, and first looks are."""
MIN_VISIBLE_SHARE = 0.2
"""A part of which less is left in a crop is no target there: nobody could tell what was meant."""


@dataclass(frozen=True)
class Crop:
    """image: (S, S, 3) uint8 RGB. masks: part name to (S, S); only parts that are visible in this view."""

    image: RgbImage
    masks: dict[str, BoolMask]


Augmentation = Callable[[RgbImage, dict[str, BoolMask], int, Generator, str | None], Crop]
"""Image (H, W, 3), masks (H, W), size of the view, generator, part to zoom in on; see `random_view`."""


def augment_zoomed(
    image: RgbImage, masks: dict[str, BoolMask], size_px: int, rng: Generator, zoom_part: str | None
) -> Crop:
    """A random view of a photograph (H, W, 3) and its masks (H, W).

    zoom_part: crop round this part, as the second look of an annotator does; None: whole photograph or random crop.
    """
    top, bottom, left, right = _crop(image.shape[0], image.shape[1], masks, rng, zoom_part)
    turn = _rotation(size_px, rng) if rng.random() < 0.3 else None
    flip = rng.random() < 0.5

    def to_view(pixels: NDArray[np.uint8], *, mask: bool) -> NDArray[np.uint8]:
        cut = pixels[top:bottom, left:right]
        shrink = cut.shape[0] > size_px or cut.shape[1] > size_px
        how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        out = cv2.resize(cut, (size_px, size_px), interpolation=how)
        if turn is not None:
            out = cv2.warpAffine(
                out, turn, (size_px, size_px), borderMode=cv2.BORDER_CONSTANT if mask else cv2.BORDER_REFLECT
            )
        return out[:, ::-1] if flip else out  # type: ignore[return-value]

    visible: dict[str, BoolMask] = {}
    crop_scale = size_px * size_px / ((bottom - top) * (right - left))
    for name, mask_hw in masks.items():
        whole_area = float(mask_hw.sum())
        seen = to_view(mask_hw.astype(np.uint8) * 255, mask=True) > 127
        area = float(seen.sum())
        if area >= 24 * (size_px / 224) ** 2 and area >= MIN_VISIBLE_SHARE * whole_area * crop_scale:
            visible[name] = np.ascontiguousarray(seen)
    return Crop(_colour(to_view(image, mask=False), rng), visible)


def _crop(
    height: int, width: int, masks: dict[str, BoolMask], rng: Generator, zoom_part: str | None
) -> tuple[int, int, int, int]:
    """top, bottom, left, right (exclusive ends)."""
    if zoom_part is not None:
        rows, cols = np.flatnonzero(masks[zoom_part].any(1)), np.flatnonzero(masks[zoom_part].any(0))
        centre = np.array([(rows[0] + rows[-1] + 1) / 2, (cols[0] + cols[-1] + 1) / 2])
        extent = np.array([rows[-1] + 1 - rows[0], cols[-1] + 1 - cols[0]], float)
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
    """Brightness, contrast, per-channel shift and now and then grey."""
    out = image.astype(np.float32)
    if rng.random() < 0.75:
        out = out * rng.uniform(0.75, 1.3) + rng.uniform(-40, 40)
    if rng.random() < 0.5:
        out += rng.uniform(-12, 12, 3).astype(np.float32)
    if rng.random() < 0.05:
        out = np.repeat(out.mean(axis=2, keepdims=True), 3, axis=2)
    return np.clip(out, 0, 255).astype(np.uint8)
