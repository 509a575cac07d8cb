"""Image and mask files as arrays, for every kind of image file: used by all commands, and by the backend for decoding."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from model.errors import DataError

WIDE_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's modes for grey images with 16 bits (`I` stores them in 32)."""
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file.

    Args:
        path: An image file. Of several frames the first is read.

    Returns:
        RGB (H, W, 3), uint8, rotated as its EXIF orientation says.

    Raises:
        DataError: If the file is missing, damaged, not an image, or has floating-point pixels.
    """
    return to_rgb(_load(path), str(path))


def read_mask(path: Path, image_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a mask file. Every pixel that is neither black nor fully transparent is inside.

    Args:
        path: An image file.
        image_hw: Height and width of the image that the mask belongs to.

    Returns:
        bool (H, W).

    Raises:
        DataError: If the file cannot be read or has another size.
    """
    picture = _load(path)
    mask_hw = _is_inside(picture)
    if mask_hw.shape != image_hw:
        raise DataError(
            f"the mask {path} is {mask_hw.shape[1]} x {mask_hw.shape[0]} px, its image {image_hw[1]} x {image_hw[0]}",
            hint="a mask must be as large as its image (as shown, with the EXIF orientation applied)",
        )
    return mask_hw


def to_rgb(picture: Image.Image, name: str) -> NDArray[np.uint8]:
    """Convert a decoded image of any mode (grey, palette, CMYK, 16 bits) to RGB. Transparent parts become white.

    Args:
        picture: A decoded image.
        name: Name of the image in error messages.

    Returns:
        (H, W, 3), uint8.

    Raises:
        DataError: If its pixels are floating-point numbers.
    """
    if picture.mode in WIDE_MODES:
        grey = (np.asarray(picture).clip(0, 65535).astype(np.float32) / 257).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode == "F":
        raise DataError(f"{name} holds floating-point pixels", hint="save it with 8 or 16 bits per channel")
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        picture = Image.alpha_composite(white, coloured)
    return np.array(picture.convert("RGB"))


def _is_inside(picture: Image.Image) -> NDArray[np.bool_]:
    if picture.mode in WIDE_MODES or picture.mode == "F":
        inside: NDArray[np.bool_] = np.asarray(picture) != 0
        return inside
    channels = np.asarray(picture.convert("RGBA"))
    coloured: NDArray[np.bool_] = channels[..., :3].max(axis=2) > 0
    return coloured & (channels[..., 3] > 0)


def _load(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                return ImageOps.exif_transpose(picture)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", hint="check the path") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image", hint="save it as PNG or JPEG") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path} cannot be read ({reason})", hint="open it in a viewer and save it again"
        ) from error
