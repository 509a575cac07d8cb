"""SimpleClick's augmentation, as it trains on SBD: a piece is cut out of the image, never squashed.

The steps, in order: resize by .75 to 1.25, flip, quarter turns, small shift and rotation, pad and cut out, then
brightness, contrast and a shift of each colour. Pixels from outside the image are black.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.data.augment import Crop
from model.types import BoolMask, RgbImage

SCALES = (0.75, 1.25)
FLIP, TURN, SHIFT_AND_ROTATE, CONTRAST, COLOUR = 0.5, 0.5, 0.75, 0.75, 0.75
"""Probability of each step."""
SHIFT_SHARE, ROTATION_DEGREES = 0.03, 3.0
BRIGHTNESS, CONTRASTS, COLOUR_SHIFT = (-0.25, 0.25), (-0.15, 0.4), 10.0

Pixels = NDArray[np.uint8]
Step = Callable[[Pixels, int], Pixels]
"""Maps pixels (H, W) or (H, W, 3) and an OpenCV interpolation to the changed pixels."""


@dataclass(frozen=True)
class _Size:
    height: int
    width: int


def augment_simpleclick(
    image: RgbImage, masks: dict[str, BoolMask], size_px: int, rng: Generator, zoom_part: str | None = None
) -> Crop:
    """Make a random crop of an image.

    Args:
        image: RGB (H, W, 3), uint8.
        masks: Masks (H, W) by name of the part.
        size_px: Side of the crop.
        rng: Draws everything random.
        zoom_part: Not used: SimpleClick cuts out anywhere.
    """
    steps: list[Step] = []
    size = _Size(*image.shape[:2])
    for make_step in (_resize, _flip, _turn, _shift_and_rotate):
        step, size = make_step(size, rng)
        if step is not None:
            steps.append(step)
    steps.append(_cut_out(size, size_px, rng))

    def changed(pixels: Pixels, interpolation: int) -> Pixels:
        for step in steps:
            pixels = step(pixels, interpolation)
        return np.ascontiguousarray(pixels)

    seen = {name: changed(m.astype(np.uint8), cv2.INTER_NEAREST) > 0 for name, m in masks.items()}
    return Crop(
        _colour(changed(image, cv2.INTER_LINEAR), rng), {name: m for name, m in seen.items() if m.any()}
    )


def _resize(size: _Size, rng: Generator) -> tuple[Step | None, _Size]:
    scale = rng.uniform(*SCALES)
    new = _Size(max(round(size.height * scale), 1), max(round(size.width * scale), 1))
    return lambda pixels, interpolation: cv2.resize(
        pixels, (new.width, new.height), interpolation=interpolation
    ), new  # type: ignore[return-value]


def _flip(size: _Size, rng: Generator) -> tuple[Step | None, _Size]:
    """Flip left to right, upside down, or both."""
    if rng.random() >= FLIP:
        return None, size
    axes = ((0,), (1,), (0, 1))[rng.integers(3)]
    return lambda pixels, _: np.flip(pixels, axes), size


def _turn(size: _Size, rng: Generator) -> tuple[Step | None, _Size]:
    """Turn by 0, 90, 180 or 270 degrees."""
    if rng.random() >= TURN:
        return None, size
    turns = int(rng.integers(4))
    new = _Size(size.width, size.height) if turns % 2 else size
    return lambda pixels, _: np.rot90(pixels, turns), new


def _shift_and_rotate(size: _Size, rng: Generator) -> tuple[Step | None, _Size]:
    if rng.random() >= SHIFT_AND_ROTATE:
        return None, size
    centre = ((size.width - 1) / 2, (size.height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, float(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES)), 1.0)
    shift = rng.uniform(-SHIFT_SHARE, SHIFT_SHARE, 2) * (size.width, size.height)
    matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + shift])

    def step(pixels: Pixels, interpolation: int) -> Pixels:
        return cv2.warpAffine(  # type: ignore[return-value]
            np.ascontiguousarray(pixels), matrix, (size.width, size.height), flags=interpolation
        )

    return step, size


def _cut_out(size: _Size, size_px: int, rng: Generator) -> Step:
    """Cut out a square; smaller images are padded on both sides first."""
    down, across = max(size_px - size.height, 0), max(size_px - size.width, 0)
    top = int(rng.integers(size.height + down - size_px + 1))
    left = int(rng.integers(size.width + across - size_px + 1))

    def step(pixels: Pixels, _: int) -> Pixels:
        border = (down // 2, down - down // 2, across // 2, across - across // 2)
        padded = cv2.copyMakeBorder(np.ascontiguousarray(pixels), *border, cv2.BORDER_CONSTANT)
        return padded[top : top + size_px, left : left + size_px]  # type: ignore[return-value]

    return step


def _colour(image: Pixels, rng: Generator) -> RgbImage:
    out = image.astype(np.float64)
    if rng.random() < CONTRAST:
        out = out * (1 + rng.uniform(*CONTRASTS)) + 255 * rng.uniform(*BRIGHTNESS)
        out = np.clip(out, 0, 255)
    if rng.random() < COLOUR:
        out = out + rng.uniform(-COLOUR_SHIFT, COLOUR_SHIFT, 3)
    return np.clip(np.round(out), 0, 255).astype(np.uint8)
