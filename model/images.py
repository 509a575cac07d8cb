"""Image and mask files as arrays, for every kind of image file: used by all commands, and by the backend for decoding.

Images are as a browser shows them. In Chromium 156 an orientation counts in a JPEG's EXIF block and in a PNG's `eXIf`
chunk before the pixels. It does not count in XMP, in the text chunks of ImageMagick, after the pixels, or in WebP.
Browsers do not show TIFF; its orientation tag counts here.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from model.errors import DataError

WIDE_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's modes for grey images with 16 bits (`I` stores them in 32)."""
BAND_PIXELS = 1 << 18
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_JPEG = ("JPEG", "MPO")
_END_OF_JPEG = b"\xff\xd9"
_FILLER = bytes(range(1, 255)) * 4


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file.

    Args:
        path: An image file. Of several frames the first is read.

    Returns:
        RGB (H, W, 3), uint8, as a browser shows it.

    Raises:
        DataError: If the file is missing, damaged, not an image, or has floating-point pixels.
    """
    with _data_errors(path):
        return decode_rgb(path.read_bytes(), str(path))


def decode_rgb(
    data: bytes,
    name: str,
    formats: tuple[str, ...] | None = None,
    check: Callable[[Image.Image], None] = lambda picture: None,
) -> NDArray[np.uint8]:
    """Decode an image file. A JPEG whose end marker is missing is read if all of its pixels are there.

    Args:
        data: The file. Of several frames the first is read.
        name: Name of the file in error messages.
        formats: Pillow's names of the formats that are read; None for all.
        check: Called with the opened image before any pixel is decoded; raises if it must not be.

    Returns:
        RGB (H, W, 3), uint8, as a browser shows it.

    Raises:
        DataError: If the file is cut short, or has floating-point pixels.
        OSError: If it is damaged or no image (`PIL.UnidentifiedImageError`), as Pillow's other errors.
    """

    def decode(file: bytes) -> NDArray[np.uint8]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(file), formats=formats) as picture:
                check(picture)
                return _upright_rgb(picture, name)

    try:
        return decode(data)
    except OSError as error:
        if "truncated" not in str(error).lower():
            raise
    try:
        return _without_end(data, decode)
    except OSError:
        raise DataError(f"{name} is cut short", hint="copy or upload the image again") from None


def _without_end(data: bytes, decode: Callable[[bytes], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Decode a JPEG that has no end marker. Raises OSError if it lacks pixels, or is no JPEG.

    With all pixels there, the decoder ignores what stands before the marker. Otherwise that becomes pixels.
    """
    if not data.startswith(b"\xff\xd8"):
        raise OSError("truncated")
    with_filler = hashlib.sha256(decode(data + _FILLER + _END_OF_JPEG).data).digest()
    image = decode(data + _END_OF_JPEG)
    if hashlib.sha256(image.data).digest() != with_filler:
        raise OSError("truncated")
    return image


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
    mask_hw = _load_mask(path)
    if mask_hw.shape != image_hw:
        raise DataError(
            f"the mask {path} is {mask_hw.shape[1]} x {mask_hw.shape[0]} px, its image {image_hw[1]} x {image_hw[0]}",
            hint="a mask must be as large as its image (as a browser shows it, with its orientation)",
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


def _load_mask(path: Path) -> NDArray[np.bool_]:
    with _data_errors(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as picture:
            orientation = _orientation(picture)
            return np.ascontiguousarray(_turned(_is_inside(picture), orientation))


@contextmanager
def _data_errors(path: Path) -> Iterator[None]:
    """Turn the errors of reading an image file into a DataError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", hint="check the path") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image", hint="save it as PNG or JPEG") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path} cannot be read ({reason})", hint="open it in a viewer and save it again"
        ) from error


def _upright_rgb(picture: Image.Image, name: str) -> NDArray[np.uint8]:
    """Converts a few rows at a time, because `to_rgb` would hold several copies of a large image."""
    orientation = _orientation(picture)
    picture.load()
    width, height = picture.size
    turned = orientation >= _SWAPS_SIDES
    rgb = np.empty((width, height, 3) if turned else (height, width, 3), np.uint8)
    as_stored = _turned(rgb, _OPPOSITE.get(orientation, orientation))
    rows = max(BAND_PIXELS // width, 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        as_stored[top:bottom] = to_rgb(picture.crop((0, top, width, bottom)), name)
    return rgb


_OPPOSITE = {6: 8, 8: 6}
"""Orientations that are undone by another one; the others are undone by themselves."""
_SWAPS_SIDES = 5
"""From this orientation on, width and height change places."""


def _orientation(picture: Image.Image) -> int:
    """The orientation (1 to 8) that a browser applies to an opened image; its pixels must not be loaded yet."""
    if picture.format == "TIFF":  # Pillow itself turns it while it loads the pixels
        return 1
    if picture.format not in (*_JPEG, "PNG"):
        return 1
    exif = Image.Exif()
    try:
        exif.load(picture.info.get("exif", b""))
        value = exif.get(ExifTags.Base.Orientation)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of an array (H, W, ...) as an EXIF orientation shows it."""
    if orientation >= _SWAPS_SIDES:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array
