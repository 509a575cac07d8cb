"""tests/refcut_backend/images/test_decode.py."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.images import to_rgb
from refcut_backend.errors import ImageError
from refcut_backend.images import decode
from refcut_backend.images.decode import decode_image, fitted_mask, full_size_mask
from tests.support.recorded import REPOSITORY

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header announces a huge picture."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_every_allowed_format_is_read(kind):
    image = decode_image(file_of(Image.new("RGB", (6, 4), RED), kind), 1000)
    assert (image.shape, image.dtype) == ((4, 6, 3), np.uint8)
    assert np.abs(image.astype(int) - RED).max() < 4


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO", "TGA", "PCX", "EPS", "JPEG2000", "PDF"])
def test_other_formats_are_refused_whatever_the_file_is_called(kind):
    with pytest.raises(ImageError, match="allowed format"):
        decode_image(file_of(Image.new("RGB", (16, 16)), kind), 1000)


@pytest.mark.parametrize(
    "start", [b"SIMPLE  =                    T", b"8BPS\x00\x01", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_fits_psd_and_postscript_are_refused(start):
    with pytest.raises(ImageError, match="allowed format"):
        decode_image(start + bytes(4000), 1000)


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("RGB", RED, RED),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (0, 0, 0, 0), WHITE),
        ("LA", (0, 0), WHITE),
        ("L", 200, (200, 200, 200)),
        ("1", 1, WHITE),
        ("I;16", 65535, WHITE),
        ("I;16", 257 * 100, (100, 100, 100)),
    ],
)
def test_every_kind_of_picture_becomes_the_colours_that_a_browser_shows(mode, colour, seen):
    assert decode_image(file_of(Image.new(mode, (2, 1), colour)), 1000)[0, 0].tolist() == list(seen)


def test_palettes_and_print_colours_become_rgb():
    palette = Image.new("RGB", (4, 4), BLUE).convert("P")
    assert decode_image(file_of(palette), 1000)[0, 0].tolist() == list(BLUE)
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(decode_image(file_of(cyan, "JPEG"), 1000)[8, 8].astype(int) - (0, 255, 255)).max() < 8


def test_sixteen_bits_a_channel_become_eight():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(2, axis=0)
    for kind in ("PNG", "TIFF"):
        assert decode_image(file_of(Image.fromarray(ramp), kind), 1000)[0, :, 0].tolist() == list(range(256))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "CMYK", "I;16", "1"])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_picture_read_in_bands_is_the_whole_picture(monkeypatch, mode, transparent):
    monkeypatch.setattr(decode, "BAND_PIXELS", 700)
    noise = np.random.default_rng(0).integers(0, 255, (90, 70, 4), np.uint8)
    source = Image.fromarray(noise) if mode in ("RGBA", "LA") else Image.fromarray(noise[..., :3])
    picture = (
        Image.fromarray(noise.astype(np.uint16)[..., 0] * 256) if mode == "I;16" else source.convert(mode)
    )
    options = {"transparency": 3} if transparent and mode == "P" else {}
    data = file_of(picture, "TIFF" if mode == "CMYK" else "PNG", **options)
    whole = to_rgb(Image.open(io.BytesIO(data)), "whole")
    assert np.array_equal(decode_image(data, 10_000), whole)


def marked() -> Image.Image:
    """6 x 4 with a red corner at the top left and a green one at the top right."""
    image = Image.new("RGB", (48, 32), WHITE)
    image.paste(RED, (0, 0, 16, 16))
    image.paste(GREEN, (32, 0, 48, 16))
    return image


@pytest.mark.parametrize(
    ("orientation", "red", "green"),
    [
        (1, (0, 0), (0, -1)),
        (2, (0, -1), (0, 0)),
        (3, (-1, -1), (-1, 0)),
        (4, (-1, 0), (-1, -1)),
        (5, (0, 0), (-1, 0)),
        (6, (0, -1), (-1, -1)),
        (7, (-1, -1), (0, -1)),
        (8, (-1, 0), (0, 0)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_exif_orientation_is_applied_as_the_browser_does(kind, orientation, red, green):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(file_of(marked(), kind, exif=exif), 10_000).astype(int)
    assert image.shape[:2] == ((48, 32) if orientation >= 5 else (32, 48))
    assert np.abs(image[red] - RED).max() < 40
    assert np.abs(image[green] - GREEN).max() < 40


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20_000, 10), (10, 20_000), (1, 9000)])
def test_extreme_shapes_are_read(width, height):
    assert decode_image(file_of(Image.new("L", (width, height))), 200_000).shape == (height, width, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_read(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = file_of(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode_image(data, 1000)[0, 0].tolist() == list(RED)


@pytest.mark.parametrize("size", [(101, 100), (250, 100), (60_000, 60_000), (2**31 - 1, 1)])
def test_too_many_pixels_are_refused_by_the_header(size):
    with pytest.raises(ImageError, match="REFCUT_IMAGE_MAX_PIXELS"):
        decode_image(png_that_claims(*size), 10_000)


def test_pillow_s_own_limit_does_not_stand_in_the_way(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_image(file_of(Image.new("L", (50, 50))), 2500).shape == (50, 50, 3)


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", file_of(marked())[:60], file_of(marked(), "JPEG")[:300], png_that_claims(30, 30)],
)
def test_damage_is_reported_as_damage(data):
    with pytest.raises(ImageError) as error:
        decode_image(data, 10_000)
    assert error.value.hint


@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF"]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
)
def test_a_changed_byte_gives_a_picture_or_a_reason(kind, changes):
    data = bytearray(file_of(marked(), kind))
    for position, value in changes:
        data[position % len(data)] = value
    outcome: object
    try:
        outcome = decode_image(bytes(data), 10_000).shape[2]
    except ImageError as error:
        outcome = error.code
    assert outcome in (3, "image")


MEASURE = """
import io, resource, sys
from PIL import Image
from refcut_backend.errors import ImageError
from refcut_backend.images.decode import decode_image

data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(data, 100_000_000)
except ImageError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_decompression_bomb_takes_no_memory():
    small = Image.new("L", (16, 16))
    many_frames = file_of(
        small, "GIF", save_all=True, append_images=[Image.new("L", (16, 16), n % 2) for n in range(2)]
    )
    frame = many_frames[many_frames.index(b"\x2c") : -1]
    for bomb in (png_that_claims(60_000, 60_000), many_frames[:-1] + frame * 100_000 + b";"):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE], input=bomb, capture_output=True, cwd=REPOSITORY, check=True
        )
        assert int(done.stdout) < 32 * 1024, "kilobytes"


def probabilities(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 5), None, 0, 1, cv2.NORM_MINMAX)


@pytest.mark.parametrize("size", [(3000, 4000), (961, 1281), (1000, 3333)])
@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_the_mask_is_the_one_that_single_precision_gives(size, threshold):
    probability_hw = probabilities(200, 300)
    expected = cv2.resize(probability_hw, size[::-1], interpolation=cv2.INTER_LINEAR) > threshold
    mask_hw = full_size_mask(probability_hw, *size, threshold)
    assert mask_hw.dtype == bool
    assert mask_hw.shape == size
    assert (mask_hw != expected).sum() <= 1e-4 * expected.sum()


def test_an_image_that_is_its_own_working_copy_is_only_cut():
    probability_hw = probabilities(20, 30)
    assert np.array_equal(full_size_mask(probability_hw, 20, 30, 0.5), probability_hw > 0.5)


@pytest.mark.parametrize(("value", "expected"), [(0.0, False), (1.0, True)])
def test_empty_and_full_stay_empty_and_full(value, expected):
    mask_hw = full_size_mask(np.full((3, 5), value, np.float32), 70, 90, 0.5)
    assert (mask_hw == expected).all()


def test_a_pixel_of_the_smaller_mask_is_set_where_more_than_half_of_it_is_covered():
    mask_hw = np.zeros((4, 8), bool)
    mask_hw[:2, :2] = True
    mask_hw[:2, 2] = True
    assert np.array_equal(fitted_mask(mask_hw, 2, 4), [[True, False, False, False], [False] * 4])


def test_a_mask_of_that_size_stays_as_it_is():
    mask_hw = np.eye(5, dtype=bool)
    assert fitted_mask(mask_hw, 5, 5) is mask_hw
