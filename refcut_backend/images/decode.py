"""Decodes image files within limits, and scales masks to an image's size."""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.errors import DataError
from model.images import decode_rgb
from refcut_backend.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
DECODING_VERSION = 2
"""Part of every cache key. Increase it if the same file would decode to different pixels than before."""
DEFAULT_MAX_MEMORY_BYTES = 2**30
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, struct.error, MemoryError, OverflowError)


def decode_image(
    data: bytes, max_pixels: int, max_memory_bytes: int = DEFAULT_MAX_MEMORY_BYTES
) -> NDArray[np.uint8]:
    """Decodes an image file as the browser shows it: with the orientation that it applies, and only its first frame.

    Args:
        data: The file.
        max_pixels: Limit for width * height, checked before decoding.
        max_memory_bytes: Limit for the memory that decoding takes, estimated before decoding.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: The format is not in FORMATS, the image is too large, or the file is damaged or cut short.
    """

    def check(image: Image.Image) -> None:
        if image.width * image.height > max_pixels:
            raise _too_many(f"has {image.width} x {image.height} pixels")
        memory_bytes = image.width * image.height * bytes_per_pixel(image)
        if memory_bytes > max_memory_bytes:
            raise ImageError(
                f"the image ({image.width} x {image.height} pixels) takes {memory_bytes // 2**20} MiB to decode",
                hint="save it as an ordinary JPEG or with fewer pixels; REFCUT_IMAGE_MAX_MEMORY_BYTES sets the limit",
            )

    try:
        with _pillow_limit(max_pixels):
            return decode_rgb(data, "the file", FORMATS, check)
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


_NARROW_MODES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_RGB_BYTES = 3


def bytes_per_pixel(image: Image.Image) -> int:
    """The memory at the peak of decoding: the RGB result, Pillow's image, and what its decoder holds of the whole image.

    The last was measured with Pillow 13: libwebp keeps three pictures with four channels, a progressive JPEG all of its
    coefficients in 16 bits, and libtiff a strip, which may be the whole image.
    """
    decoder = 0
    if image.format == "WEBP":
        decoder = 12
    elif image.format == "TIFF":
        decoder = 4
    elif image.info.get("progressive"):
        decoder = 2 * len(image.getbands())
    return _RGB_BYTES + _NARROW_MODES.get(image.mode, 4) + decoder


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


def pixels_digest(pixels: NDArray[np.uint8]) -> str:
    """Returns the SHA-256 of an image's size and pixels, (H, W, 3) uint8: equal for equal photographs in any file."""
    height, width = pixels.shape[:2]
    return hashlib.sha256(f"{height}x{width} ".encode() + pixels.tobytes()).hexdigest()


def fitted_mask(mask_hw: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Scales a mask (H, W) to (height, width): a pixel is foreground if the mask covers more than half of it."""
    if mask_hw.shape == (height, width):
        return mask_hw
    shares = cv2.resize(mask_hw.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return shares > 0.5
