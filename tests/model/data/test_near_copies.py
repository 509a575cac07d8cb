"""Photographs of val splits are found among training sets, however they were stored."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from model.data.near_copies import find_near_copies
from model.errors import DataError
from tests.support.synthetic import drawn_image


def written(folder: Path, name: str, image: NDArray[np.uint8], quality: int = 95) -> Path:
    path = folder / name
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return path


def test_a_smaller_and_coarser_copy_is_found(tmp_path: Path) -> None:
    image = drawn_image(240, 320)
    protected = [written(tmp_path, f"val{seed}.jpg", drawn_image(240, 320, seed)) for seed in range(4)]
    small = cv2.resize(image, (200, 150), interpolation=cv2.INTER_AREA)
    copy = written(tmp_path, "copy.jpg", np.asarray(small, np.uint8), quality=40)
    other = written(tmp_path, "other.jpg", drawn_image(240, 320, seed=9))
    (found,) = find_near_copies([other, copy], protected)
    assert (found.photograph, found.protected, found.mirrored) == (copy, protected[0], False)


def test_a_mirrored_copy_is_found(tmp_path: Path) -> None:
    image = drawn_image(240, 320)
    protected = written(tmp_path, "val.jpg", image)
    copy = written(tmp_path, "copy.jpg", np.ascontiguousarray(image[:, ::-1]))
    (found,) = find_near_copies([copy], [protected])
    assert found.mirrored


def test_a_file_is_no_copy_of_itself(tmp_path: Path) -> None:
    path = written(tmp_path, "val.jpg", drawn_image(240, 320))
    assert find_near_copies([path], [path]) == []


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "val.jpg", drawn_image(240, 320))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg cannot be read"):
        find_near_copies([tmp_path / "broken.jpg"], [path])
