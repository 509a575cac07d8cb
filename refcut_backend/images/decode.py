"""Image files as arrays, within limits."""

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
"""Part of every cache key: raise it when the same file would give other pixels than before."""
BAND_PIXELS = 1 << 20
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, struct.error, MemoryError, OverflowError)


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Image file to RGB (H, W, 3) uint8 with its EXIF orientation applied, as the browser shows it.

    Of several frames the first one; no other frame is read. Raises ImageError for formats that are not allowed, for
    too many pixels (before they are decoded), for damage.
    """
    try:
        with _pillow_limit(max_pixels), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise _too_many(f"has {image.width} x {image.height} pixels")
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except UnidentifiedImageError:
        raise ImageError(
            "the file is no image of an allowed format", hint=f"allowed: {', '.join(FORMATS)}"
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
    """Pillow's own limit, one for the process, would stand in the way of a larger one, and warn below it."""
    usual = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = usual


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """`to_rgb` a few rows at a time: at once it would hold several copies of a large picture."""
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(BAND_PIXELS // image.width, 1)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        rgb[top:bottom] = to_rgb(image.crop((0, top, image.width, bottom)), "the image")
    return rgb


def _too_many(what: str) -> ImageError:
    return ImageError(f"the image {what}", hint="REFCUT_IMAGE_MAX_PIXELS sets the limit")


STEPS = 2**16 - 1


def full_size_mask(
    probability_hw: NDArray[np.float32], height: int, width: int, threshold: float
) -> NDArray[np.bool_]:
    """Probabilities (h, w) float32 in 0..1, all of them numbers, enlarged bilinearly and cut at a threshold, as a mask
    (H, W).

    In steps of 1/65535: that moves an outline by thousandths of a pixel, and 12 megapixels cost a third.
    """
    if probability_hw.shape == (height, width):
        return probability_hw > threshold
    steps_hw = (probability_hw * np.float32(STEPS) + np.float32(0.5)).astype(np.uint16)
    enlarged_hw = cv2.resize(steps_hw, (width, height), interpolation=cv2.INTER_LINEAR)
    mask_hw: NDArray[np.bool_] = enlarged_hw > round(threshold * STEPS)
    return mask_hw


def fitted_mask(mask_hw: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """A mask (H, W) as (height, width): pixels that it covers by more than half."""
    if mask_hw.shape == (height, width):
        return mask_hw
    shares = cv2.resize(mask_hw.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return shares > 0.5
