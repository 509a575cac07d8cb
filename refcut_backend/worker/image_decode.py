"""Image files as arrays, within limits."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from model.errors import DataError
from model.images import to_rgb
from refcut_backend.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
DECODING_VERSION = 1
"""Part of every cache key: raise it when the same file would give other pixels than before."""
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, struct.error, MemoryError, OverflowError)


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Image file to RGB (H, W, 3) uint8 with its EXIF orientation applied, as the browser shows it.

    Of several frames the first one; no other frame is read. Raises ImageError for formats that are not allowed, for
    too many pixels (before they are decoded), for damage.
    """
    # Pillow has a limit of its own, for the whole process, that would stand in the way of a larger one set here.
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise _too_many(f"has {image.width} x {image.height} pixels")
                return to_rgb(ImageOps.exif_transpose(image), "the image")
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


def _too_many(what: str) -> ImageError:
    return ImageError(f"the image {what}", hint="REFCUT_IMAGE_MAX_PIXELS sets the limit")
