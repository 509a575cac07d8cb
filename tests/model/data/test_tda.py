from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from model.data.readers import read_tda
from model.errors import DataError


def write(path: Path, rows: int = 0, channels: int = 1) -> None:
    """A picture of 10 x 12 px of which so many rows are on."""
    pixels = np.zeros((10, 12, channels), np.uint8)
    pixels[:rows, :, :3] = 255
    if channels == 4:
        pixels[..., 3] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def test_masks_beside_a_photograph_are_its_parts(tmp_path: Path) -> None:
    write(tmp_path / "scissors_02" / "image.jpg", channels=3)
    write(tmp_path / "scissors_02" / "blade.png", 3)
    write(tmp_path / "scissors_02" / "handle.png", 2, channels=4)
    write(tmp_path / "scissors_01" / "photo.jpg", channels=3)
    write(tmp_path / "scissors_01" / "photo_blade_1.png", 1)
    write(tmp_path / "scissors_01" / "photo_blade_2.png", 2)
    first, second = read_tda(tmp_path)
    assert first.object_class == second.object_class == "scissors"
    assert {name: int(mask.sum()) for name, mask in first.masks().items()} == {"blade": 24}
    assert {name: int(mask.sum()) for name, mask in second.masks().items()} == {"blade": 36, "handle": 24}
    assert second.image().shape == (10, 12, 3)


def test_several_photographs_in_a_folder_have_masks_by_name(tmp_path: Path) -> None:
    for photo, rows in (("a", 1), ("a_b", 2)):
        write(tmp_path / "apple" / f"{photo}.jpg", channels=3)
        write(tmp_path / "apple" / f"{photo}_core.png", rows)
    scenes = read_tda(tmp_path)
    assert [(scene.image_path.name, int(scene.masks()["core"].sum())) for scene in scenes] == [
        ("a.jpg", 12),
        ("a_b.jpg", 24),
    ]


def test_what_is_not_laid_out_so_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        read_tda(tmp_path)
    write(tmp_path / "apple" / "core.png", 1)
    with pytest.raises(DataError, match="no photograph"):
        read_tda(tmp_path)
    write(tmp_path / "apple" / "a.jpg", channels=3)
    write(tmp_path / "apple" / "b.jpg", channels=3)
    with pytest.raises(DataError, match="belongs to none"):
        read_tda(tmp_path)
    (tmp_path / "apple" / "core.png").rename(tmp_path / "apple" / "a_core.png")
    with pytest.raises(DataError, match=r"b\.jpg has no mask"):
        read_tda(tmp_path)
