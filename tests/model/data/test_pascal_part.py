from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from model.data.readers import read_pascal_part
from model.errors import DataError


def structs(rows: list[dict[str, Any]]) -> Any:
    """A 1 x N MATLAB struct array; without rows the empty matrix that the data set has there."""
    if not rows:
        return np.zeros((0, 0))
    out = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for place, row in enumerate(rows):
        out[0, place] = tuple(row.values())
    return out


def part(name: str, rows: slice) -> dict[str, Any]:
    mask = np.zeros((12, 16), np.uint8)
    mask[rows] = 1
    return {"part_name": name, "mask": mask}


def thing(name: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"class": name, "class_ind": 1, "mask": np.ones((12, 16), np.uint8), "parts": structs(parts)}


def write_photo(root: Path, name: str, things: list[dict[str, Any]]) -> None:
    for folder in ("Annotations_Part", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    savemat(root / "Annotations_Part" / f"{name}.mat", {"anno": {"imname": name, "objects": structs(things)}})
    cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), np.zeros((12, 16, 3), np.uint8))


def test_each_object_with_parts_is_a_scene(tmp_path: Path) -> None:
    write_photo(tmp_path, "2008_2", [thing("dog", [part("head", np.s_[:4]), part("tail", np.s_[4:5])])])
    write_photo(
        tmp_path,
        "2008_1",
        [
            thing("cat", [part("head", np.s_[:2])]),
            thing("sofa", []),
            thing("cat", [part("head", np.s_[6:9])]),
        ],
    )
    scenes = read_pascal_part(tmp_path)
    assert [(scene.image_path.name, scene.object_class) for scene in scenes] == [
        ("2008_1.jpg", "cat"),
        ("2008_1.jpg", "cat"),
        ("2008_2.jpg", "dog"),
    ]
    assert [int(scene.masks()["head"].sum()) for scene in scenes] == [32, 48, 64]
    assert scenes[0].image().shape == (12, 16, 3)


def test_a_list_of_names_chooses_photographs(tmp_path: Path) -> None:
    for name in ("2008_1", "2008_2", "2008_3"):
        write_photo(tmp_path, name, [thing("cat", [part("head", np.s_[:2])])])
    (tmp_path / "val.txt").write_text("2008_3\n2008_1  1\n\n")
    scenes = read_pascal_part(tmp_path, tmp_path / "val.txt")
    assert [scene.image_path.stem for scene in scenes] == ["2008_1", "2008_3"]


def test_another_file_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.mat file"):
        read_pascal_part(tmp_path)
    (tmp_path / "Annotations_Part").mkdir()
    savemat(tmp_path / "Annotations_Part" / "a.mat", {"other": 1})
    with pytest.raises(DataError, match="not a PASCAL-Part annotation"):
        read_pascal_part(tmp_path)
    (tmp_path / "Annotations_Part" / "a.mat").write_bytes(b"not MATLAB at all" * 20)
    with pytest.raises(DataError, match="not a PASCAL-Part annotation"):
        read_pascal_part(tmp_path)
