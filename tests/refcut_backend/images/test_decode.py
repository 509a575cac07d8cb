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

from model import images
from model.images import to_rgb
from refcut_backend.errors import ImageError
from refcut_backend.images.decode import bytes_per_pixel, decode_image, fitted_mask, full_size_mask
from tests.support.orientation_files import ORIENTATION_FILES, UNTURNED, marked
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
    monkeypatch.setattr(images, "BAND_PIXELS", 700)
    noise = np.random.default_rng(0).integers(0, 255, (90, 70, 4), np.uint8)
    source = Image.fromarray(noise) if mode in ("RGBA", "LA") else Image.fromarray(noise[..., :3])
    picture = (
        Image.fromarray(noise.astype(np.uint16)[..., 0] * 256) if mode == "I;16" else source.convert(mode)
    )
    options = {"transparency": 3} if transparent and mode == "P" else {}
    data = file_of(picture, "TIFF" if mode == "CMYK" else "PNG", **options)
    whole = to_rgb(Image.open(io.BytesIO(data)), "whole")
    assert np.array_equal(decode_image(data, 10_000), whole)


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
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_the_exif_orientation_is_applied_as_the_browser_does(kind, orientation, red, green):
    image = decode_image(file_of(marked(), kind, exif=exif_of(orientation)), 10_000).astype(int)
    assert image.shape[:2] == ((48, 32) if orientation >= 5 else (32, 48))
    assert np.abs(image[red] - RED).max() < 40
    assert np.abs(image[green] - GREEN).max() < 40


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("name", UNTURNED)
def test_marks_of_orientation_that_the_browser_ignores_are_ignored(name):
    image = decode_image(ORIENTATION_FILES[name], 10_000).astype(int)
    assert image.shape[:2] == (32, 48)
    assert np.abs(image[0, 0] - RED).max() < 40
    assert np.abs(image[0, -1] - GREEN).max() < 40


@pytest.mark.parametrize("exif", [b"Exif\0\0damaged", b"Exif\0\0II*\0\xff\xff\xff\xff", exif_of(9).tobytes()])
def test_a_damaged_orientation_costs_the_orientation_and_not_the_picture(exif):
    assert decode_image(file_of(marked(), "JPEG", exif=exif), 10_000).shape == (32, 48, 3)


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


@pytest.mark.parametrize("lost_bytes", [1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_only_its_end_marker_is_read(progressive, lost_bytes):
    whole = file_of(noise(), "JPEG", progressive=progressive)
    assert np.array_equal(decode_image(whole[:-lost_bytes], 10_000), decode_image(whole, 10_000))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("kept", [0.66, 0.98])
def test_a_file_that_lacks_pixels_is_cut_short(kind, kept):
    whole = file_of(noise(), kind)
    with pytest.raises(ImageError, match="the file is cut short"):
        decode_image(whole[: int(kept * len(whole))], 10_000)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_its_last_pixels_is_cut_short(progressive):
    whole = file_of(noise(), "JPEG", progressive=progressive)
    with pytest.raises(ImageError, match="the file is cut short"):
        decode_image(whole[:-8], 10_000)


def test_a_png_without_its_end_chunk_is_read():
    whole = file_of(noise(), "PNG")
    assert np.array_equal(decode_image(whole[:-12], 10_000), decode_image(whole, 10_000))


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8))


MEASURE = """
import sys
from refcut_backend.errors import ImageError
from refcut_backend.images.decode import decode_image

def peak_kib():  # of this program; getrusage would count what its parent took before it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

data, limit_bytes = sys.stdin.buffer.read(), int(sys.argv[1])
before = peak_kib()
try:
    decode_image(data, 100_000_000, limit_bytes)
    print("read")
except ImageError as error:
    print("refused")
print(1024 * (peak_kib() - before))
"""


def memory_for(data: bytes, limit_bytes: int = 2**30) -> tuple[str, int]:
    """Returns `read` or `refused`, and the bytes of memory that this took."""
    command = [sys.executable, "-c", MEASURE, str(limit_bytes)]
    done = subprocess.run(command, input=data, capture_output=True, cwd=REPOSITORY, check=True)
    outcome, taken = done.stdout.decode().split()
    return outcome, int(taken)


def test_a_decompression_bomb_takes_no_memory():
    small = Image.new("L", (16, 16))
    many_frames = file_of(
        small, "GIF", save_all=True, append_images=[Image.new("L", (16, 16), n % 2) for n in range(2)]
    )
    frame = many_frames[many_frames.index(b"\x2c") : -1]
    for bomb in (png_that_claims(60_000, 60_000), many_frames[:-1] + frame * 100_000 + b";"):
        outcome, taken = memory_for(bomb)
        assert (outcome, taken < 32 * 2**20) == ("refused", True)


PIXELS = 2000 * 2000


@pytest.mark.parametrize(
    ("kind", "options", "mode"),
    [
        ("JPEG", {}, "RGB"),
        ("JPEG", {"progressive": True, "subsampling": 0}, "RGB"),
        ("JPEG", {"progressive": True, "subsampling": 0}, "CMYK"),
        ("PNG", {}, "RGBA"),
        ("PNG", {}, "L"),
        ("WEBP", {}, "RGB"),
        ("WEBP", {"lossless": True}, "RGBA"),
        ("TIFF", {"compression": "tiff_lzw", "strip_size": 2**31 - 1}, "RGBA"),
        ("BMP", {}, "RGB"),
    ],
)
def test_what_decoding_takes_is_known_before(kind, options, mode):
    data = file_of(Image.new(mode, (2000, 2000)), kind, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = PIXELS * bytes_per_pixel(image)
    outcome, taken = memory_for(data, expected)
    assert (outcome, taken < 1.1 * expected + 8 * 2**20) == ("read", True)
    outcome, taken = memory_for(data, expected - 1)
    assert (outcome, taken < 8 * 2**20) == ("refused", True)


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
