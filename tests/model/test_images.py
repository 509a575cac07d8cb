"""Pictures and masks of every kind are read the way a person sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.errors import DataError
from model.images import read_image, read_mask

HEIGHT, WIDTH = 6, 9
COLOURS = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
COLOURS[:, :4] = (200, 30, 90)
COLOURS[2:, 5:] = (10, 250, 40)
GREY = COLOURS.max(axis=2)


def three(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def saved(folder: Path, picture: Image.Image, name: str = "picture.png") -> Path:
    picture.save(folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp", "a.gif"])
def test_the_file_format_does_not_matter(tmp_path: Path, name: str) -> None:
    Image.fromarray(COLOURS).save(tmp_path / name, lossless=True)
    assert np.array_equal(read_image(tmp_path / name), COLOURS)


def test_grey_pictures_become_three_equal_channels(tmp_path: Path) -> None:
    assert np.array_equal(read_image(saved(tmp_path, Image.fromarray(GREY))), three(GREY))


def test_16_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    wide = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert np.array_equal(read_image(saved(tmp_path, wide)), three(GREY))


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    rgba = np.dstack([COLOURS, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    rgba[0, :, 3] = 0
    expected = COLOURS.copy()
    expected[0] = 255
    assert np.array_equal(read_image(saved(tmp_path, Image.fromarray(rgba))), expected)


def test_palettes_are_looked_up_with_their_transparent_colour(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOURS).quantize(4)
    assert np.array_equal(read_image(saved(tmp_path, palette)), COLOURS)
    clear = palette.getpixel((4, 0))
    palette.save(tmp_path / "clear.png", transparency=clear)
    assert read_image(tmp_path / "clear.png")[0, 4].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("mode", "name"), [("CMYK", "a.tiff"), ("1", "a.png"), ("LA", "a.png"), ("I", "a.tiff")]
)
def test_other_modes_have_the_right_shape(tmp_path: Path, mode: str, name: str) -> None:
    image = read_image(saved(tmp_path, Image.fromarray(COLOURS).convert(mode), name))
    assert image.shape == COLOURS.shape
    assert image.dtype == np.uint8


def test_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    image = read_image(saved(tmp_path, Image.fromarray(COLOURS).convert("CMYK"), "a.tiff"))
    assert np.abs(image.astype(int) - COLOURS).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_rotated_as_their_exif_orientation_says(tmp_path: Path, orientation: int) -> None:
    upright = COLOURS.copy()
    upright[0, 0] = (0, 0, 255)
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turns[orientation])).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), upright)


def test_of_several_frames_the_first_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(COLOURS, shift, axis=1)) for shift in (0, 3)]
    frames[0].save(tmp_path / "moving.tiff", save_all=True, append_images=frames[1:])
    assert np.array_equal(read_image(tmp_path / "moving.tiff"), COLOURS)


def test_a_picture_of_one_pixel_is_read(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path, Image.fromarray(COLOURS[:1, :1]))).tolist() == [[[200, 30, 90]]]


def broken(folder: Path) -> Path:
    path = saved(folder, Image.effect_noise((80, 80), 50))
    path.write_bytes(path.read_bytes()[:100] + bytes(2000))
    return path


def cut_short(folder: Path) -> Path:
    path = saved(folder, Image.effect_noise((80, 80), 50))
    path.write_bytes(path.read_bytes()[:2000])
    return path


def text(folder: Path) -> Path:
    (folder / "text.png").write_text("not a picture")
    return folder / "text.png"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cut_short, "is cut short"),
        (broken, "cannot be read"),
        (text, "is not an image"),
        (lambda folder: folder / "missing.png", "does not exist"),
        (lambda folder: folder, "cannot be read"),
        (lambda folder: saved(folder, Image.new("F", (3, 3)), "float.tiff"), "floating-point"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(
    tmp_path: Path, make: object, message: str
) -> None:
    assert callable(make)
    with pytest.raises(DataError, match=message) as caught:
        read_image(make(tmp_path))
    assert caught.value.hint


def test_a_bomb_of_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match="cannot be read"):
        read_image(saved(tmp_path, Image.fromarray(COLOURS)))


INSIDE = GREY > 0


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("black and white", Image.fromarray(INSIDE)),
        ("255", Image.fromarray(INSIDE.astype(np.uint8) * 255)),
        ("1", Image.fromarray(INSIDE.astype(np.uint8))),
        ("1 of 65535", Image.fromarray(INSIDE.astype(np.uint16))),
        ("colours", Image.fromarray(COLOURS)),
        ("palette", Image.fromarray(COLOURS).quantize(4)),
        ("opaque", Image.fromarray(COLOURS).convert("RGBA")),
        (
            "transparent outside",
            Image.fromarray(np.dstack([np.full_like(COLOURS, 255), INSIDE * np.uint8(255)])),
        ),
    ],
)
def test_any_pixel_but_black_or_transparent_is_inside(tmp_path: Path, name: str, mask: Image.Image) -> None:
    assert np.array_equal(read_mask(saved(tmp_path, mask), (HEIGHT, WIDTH)), INSIDE), name


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is 9 x 6 px, its image 6 x 9"):
        read_mask(saved(tmp_path, Image.fromarray(GREY)), (WIDTH, HEIGHT))
