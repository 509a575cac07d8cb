"""Pictures with marks of orientation 6, in every place where programs put them: what browsers follow, and what not."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)
_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def marked() -> Image.Image:
    """48 x 32 px, white, with a red square at the top left and a green one at the top right."""
    image = Image.new("RGB", (48, 32), WHITE)
    image.paste(RED, (0, 0, 16, 16))
    image.paste(GREEN, (32, 0, 48, 16))
    return image


def _saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    marked().save(file, kind, **options)
    return file.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _png_with(name: bytes, body: bytes, before: bytes = b"IDAT") -> bytes:
    png = _saved("PNG")
    place = png.index(before) - 4
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return png[:place] + chunk + png[place:]


def _raw_profile() -> bytes:
    """EXIF as ImageMagick writes it into a PNG's text chunk."""
    exif = b"Exif\0\0" + _tiff_header()
    return b"\nexif\n%8d\n%s\n" % (len(exif), exif.hex().encode())


def _tiff_header() -> bytes:
    return _exif().tobytes().removeprefix(b"Exif\0\0")


ORIENTATION_FILES: dict[str, bytes] = {
    "plain.jpg": _saved("JPEG", quality=95),
    "exif.jpg": _saved("JPEG", quality=95, exif=_exif()),
    "xmp.jpg": _saved("JPEG", quality=95, xmp=_XMP),
    "exif.png": _png_with(b"eXIf", _tiff_header()),
    "exif_after_the_pixels.png": _png_with(b"eXIf", _tiff_header(), before=b"IEND"),
    "imagemagick_zTXt.png": _png_with(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(_raw_profile())),
    "imagemagick_tEXt.png": _png_with(b"tEXt", b"Raw profile type exif\0" + _raw_profile()),
    "xmp.png": _png_with(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP),
    "exif.webp": _saved("WEBP", quality=95, exif=_exif()),
    "exif_lossless.webp": _saved("WEBP", lossless=True, exif=_exif()),
    "xmp.webp": _saved("WEBP", quality=95, xmp=_XMP),
}
TURNED = ("exif.jpg", "exif.png")
"""What Chromium 156 turns; `tests/end_to_end/test_orientation.py` asks it."""
UNTURNED = tuple(name for name in ORIENTATION_FILES if name not in TURNED)
