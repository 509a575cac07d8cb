from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from model.data.readers import PARTS, read_part_imagenet
from model.errors import DataError


def write_photo(root: Path, name: str, ids: dict[int, tuple[slice, slice]], *, grey: bool = False) -> None:
    """A photograph and its annotation of 20 x 30 px, background 40."""
    annotation = np.full((20, 30, 3), 40, np.uint8)
    annotation[..., :2] = 7
    for part_id, place in ids.items():
        annotation[(*place, 2)] = part_id
    for folder, pixels in (("annotations", annotation), ("images", np.zeros((20, 30, 3), np.uint8))):
        (root / folder / "val").mkdir(parents=True, exist_ok=True)
        ending = "png" if folder == "annotations" else "JPEG"
        written = pixels[..., 2] if grey and folder == "annotations" else pixels
        cv2.imwrite(str(root / folder / "val" / f"{name}.{ending}"), written)


@pytest.mark.parametrize("grey", [False, True])
def test_ids_of_channel_0_become_parts_of_their_class(tmp_path: Path, grey: bool) -> None:
    write_photo(tmp_path, "b", {13: np.s_[0:5, 0:5], 14: np.s_[5:9, 0:5]}, grey=grey)
    write_photo(tmp_path, "a", {0: np.s_[0:5, 0:6]})
    first, second = read_part_imagenet(tmp_path, "val")
    assert (first.object_class, first.image_path.name) == ("Quadruped", "a.JPEG")
    assert {name: int(mask.sum()) for name, mask in first.masks().items()} == {"Head": 30}
    assert second.object_class == "Bird"
    assert {name: int(mask.sum()) for name, mask in second.masks().items()} == {"Body": 20, "Head": 25}
    assert second.image().shape == (20, 30, 3)


def test_two_classes_on_a_photograph_are_two_objects(tmp_path: Path) -> None:
    write_photo(tmp_path, "a", {24: np.s_[0:5, 0:5], 27: np.s_[5:9, 0:5]})
    assert [scene.object_class for scene in read_part_imagenet(tmp_path, "val")] == ["Bicycle", "Car"]


def test_ids_are_those_of_the_data_set() -> None:
    assert len(PARTS) == 40
    known = {
        3: "Quadruped Tail",
        12: "Fish Tail",
        19: "Snake Body",
        26: "Car Side Mirror",
        28: "Bicycle Head",
    }
    known |= {31: "Boat Body", 35: "Aeroplane Engine", 38: "Bottle Mouth", 39: "Bottle Body"}
    assert {part_id: " ".join(PARTS[part_id]) for part_id in known} == known


def test_an_unknown_id_a_missing_photograph_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no PNG"):
        read_part_imagenet(tmp_path, "val")
    write_photo(tmp_path, "a", {41: np.s_[0:5, 0:5]})
    with pytest.raises(DataError, match="unknown part id 41"):
        read_part_imagenet(tmp_path, "val")
    (tmp_path / "images" / "val" / "a.JPEG").unlink()
    with pytest.raises(DataError, match="no photograph"):
        read_part_imagenet(tmp_path, "val")
