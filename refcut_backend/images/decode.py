"""Decodes image files within limits, and scales masks to an image's size."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from model.errors import DataError
from model.images import to_rgb
from refcut_backend.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
DECODING_VERSION = 1
"""Part of every cache key. Increase it if the same file would decode to different pixels than before."""
BAND_PIXELS = 1 << 20
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, struct.error, MemoryError, OverflowError)


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decodes an image file as the browser shows it: with its EXIF orientation, and only its first frame.

    Args:
        data: The file.
        max_pixels: Limit for width * height, checked before decoding.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: The format is not in FORMATS, the image has too many pixels, or the file is damaged.
    """
    try:
        with _pillow_limit(max_pixels), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise _too_many(f"has {image.width} x {image.height} pixels")
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except UnidentifiedImageError:
        raise ImageError(
            "the file is not an image of an allowed format", hint=f"allowed: {', '.join(FORMATS)}"
        ) from None
    except DataError as error:
        raise ImageError(error.message, hint=error.hint) from None
    except Image.DecompressionBombError:
        raise _too_many("has too many pixels") from None
    except _DAMAGE as error:
        raise ImageError(
            f"the image is damaged ({type(error).__name__})", hint="open it in a viewer"
        ) from None


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Replaces Pillow's limit, which is global: it would refuse images below `max_pixels`, and warn about others."""
    usual = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = usual


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Applies `to_rgb` to a few rows at a time, because it would hold several copies of a large image."""
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(BAND_PIXELS // image.width, 1)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        rgb[top:bottom] = to_rgb(image.crop((0, top, image.width, bottom)), "the image")
    return rgb


def _too_many(what: str) -> ImageError:
    return ImageError(f"the image {what}", hint="REFCUT_IMAGE_MAX_PIXELS sets the limit")


PROBABILITY_STEPS = 2**16 - 1


def full_size_mask(
    probability_hw: NDArray[np.float32], height: int, width: int, threshold: float
) -> NDArray[np.bool_]:
    """Enlarges probabilities bilinearly and cuts them at a threshold.

    It computes in steps of 1/65535, which moves an outline by thousandths of a pixel and takes a third of the time.

    Args:
        probability_hw: (h, w) float32 in 0..1, without NaN.
        height: Height of the mask in pixels.
        width: Width of the mask in pixels.
        threshold: Probabilities above it are foreground.

    Returns:
        Mask (height, width).
    """
    if probability_hw.shape == (height, width):
        return probability_hw > threshold
    steps_hw = (probability_hw * np.float32(PROBABILITY_STEPS) + np.float32(0.5)).astype(np.uint16)
    enlarged_hw = cv2.resize(steps_hw, (width, height), interpolation=cv2.INTER_LINEAR)
    mask_hw: NDArray[np.bool_] = enlarged_hw > round(threshold * PROBABILITY_STEPS)
    return mask_hw


def fitted_mask(mask_hw: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Scales a mask (H, W) to (height, width): a pixel is foreground if the mask covers more than half of it."""
    if mask_hw.shape == (height, width):
        return mask_hw
    shares = cv2.resize(mask_hw.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return shares > 0.5
