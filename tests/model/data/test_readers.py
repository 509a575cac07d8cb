"""tests/model/data/test_readers.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from model.data.readers import PARTS, SetDescription, read_part_imagenet, read_pascal_part, read_tda
from model.errors import DataError
from model.masks import decode, encode


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
    annotated_objects = read_tda(tmp_path)
    assert [
        (annotated_object.image_path.name, int(annotated_object.masks()["core"].sum()))
        for annotated_object in annotated_objects
    ] == [
        ("a.jpg", 12),
        ("a_b.jpg", 24),
    ]


def test_another_layout_is_reported(tmp_path: Path) -> None:
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


def write_part_imagenet_photo(
    root: Path, name: str, ids: dict[int, tuple[slice, slice]], *, grey: bool = False
) -> None:
    """A photograph and its annotation of 20 x 30 px, background 40."""
    annotation = np.full((20, 30, 3), 40, np.uint8)
    annotation[..., :2] = 7
    for part_id, region in ids.items():
        annotation[(*region, 2)] = part_id
    for folder, pixels in (("annotations", annotation), ("images", np.zeros((20, 30, 3), np.uint8))):
        (root / folder / "val").mkdir(parents=True, exist_ok=True)
        ending = "png" if folder == "annotations" else "JPEG"
        written = pixels[..., 2] if grey and folder == "annotations" else pixels
        cv2.imwrite(str(root / folder / "val" / f"{name}.{ending}"), written)


@pytest.mark.parametrize("grey", [False, True])
def test_ids_of_channel_0_become_parts_of_their_class(tmp_path: Path, grey: bool) -> None:
    write_part_imagenet_photo(tmp_path, "b", {13: np.s_[0:5, 0:5], 14: np.s_[5:9, 0:5]}, grey=grey)
    write_part_imagenet_photo(tmp_path, "a", {0: np.s_[0:5, 0:6]})
    first, second = read_part_imagenet(tmp_path, "val")
    assert (first.object_class, first.image_path.name) == ("Quadruped", "a.JPEG")
    assert {name: int(mask.sum()) for name, mask in first.masks().items()} == {"Head": 30}
    assert second.object_class == "Bird"
    assert {name: int(mask.sum()) for name, mask in second.masks().items()} == {"Body": 20, "Head": 25}
    assert second.image().shape == (20, 30, 3)


def test_references_are_found_within_a_category_not_within_a_kind(tmp_path: Path) -> None:
    for name in ("n02101006_27", "n02101006_5", "n02403003_1", "my_photo"):
        write_part_imagenet_photo(tmp_path, name, {0: np.s_[0:5, 0:6], 3: np.s_[9:12, 0:6]})
    annotated_objects = read_part_imagenet(tmp_path, "val")
    classes = [(one.image_path.stem, one.object_class) for one in annotated_objects]
    assert classes == [
        ("my_photo", "Quadruped"),
        ("n02101006_27", "Quadruped n02101006"),
        ("n02101006_5", "Quadruped n02101006"),
        ("n02403003_1", "Quadruped n02403003"),
    ]


def test_two_classes_on_a_photograph_are_two_objects(tmp_path: Path) -> None:
    write_part_imagenet_photo(tmp_path, "a", {24: np.s_[0:5, 0:5], 27: np.s_[5:9, 0:5]})
    assert [annotated_object.object_class for annotated_object in read_part_imagenet(tmp_path, "val")] == [
        "Bicycle",
        "Car",
    ]


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


def test_an_unknown_id_a_missing_photograph_and_an_empty_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no PNG"):
        read_part_imagenet(tmp_path, "val")
    write_part_imagenet_photo(tmp_path, "a", {41: np.s_[0:5, 0:5]})
    with pytest.raises(DataError, match="unknown part id 41"):
        read_part_imagenet(tmp_path, "val")
    (tmp_path / "images" / "val" / "a.JPEG").unlink()
    with pytest.raises(DataError, match="no photograph"):
        read_part_imagenet(tmp_path, "val")


def structs(rows: list[dict[str, Any]]) -> Any:
    """A 1 x N MATLAB struct array; without rows the empty matrix that the data set has there."""
    if not rows:
        return np.zeros((0, 0))
    out = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for number, row in enumerate(rows):
        out[0, number] = tuple(row.values())
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


def test_each_object_with_parts_is_an_annotated_object(tmp_path: Path) -> None:
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
    annotated_objects = read_pascal_part(tmp_path)
    assert [
        (annotated_object.image_path.name, annotated_object.object_class)
        for annotated_object in annotated_objects
    ] == [
        ("2008_1.jpg", "cat"),
        ("2008_1.jpg", "cat"),
        ("2008_2.jpg", "dog"),
    ]
    assert [int(annotated_object.masks()["head"].sum()) for annotated_object in annotated_objects] == [
        32,
        48,
        64,
    ]
    assert annotated_objects[0].image().shape == (12, 16, 3)


def test_a_list_of_names_chooses_photographs(tmp_path: Path) -> None:
    for name in ("2008_1", "2008_2", "2008_3"):
        write_photo(tmp_path, name, [thing("cat", [part("head", np.s_[:2])])])
    (tmp_path / "val.txt").write_text("2008_3\n2008_1  1\n\n")
    annotated_objects = read_pascal_part(tmp_path, tmp_path / "val.txt")
    assert [annotated_object.image_path.stem for annotated_object in annotated_objects] == [
        "2008_1",
        "2008_3",
    ]


def test_another_file_and_an_empty_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.mat file"):
        read_pascal_part(tmp_path)
    (tmp_path / "Annotations_Part").mkdir()
    savemat(tmp_path / "Annotations_Part" / "a.mat", {"other": 1})
    with pytest.raises(DataError, match="not a PASCAL-Part annotation"):
        read_pascal_part(tmp_path)
    (tmp_path / "Annotations_Part" / "a.mat").write_bytes(b"not MATLAB at all" * 20)
    with pytest.raises(DataError, match="not a PASCAL-Part annotation"):
        read_pascal_part(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/d/ccp/val.json", SetDescription("ccp-val", "coco", Path("/d/ccp/val.json"), {})),
        (
            "coco:/d/x.json,grouping=photo,images=/p,name=mine",
            SetDescription("mine", "coco", Path("/d/x.json"), {"grouping": "photo", "images": "/p"}),
        ),
        (
            "part_imagenet:/d/pin,split=test",
            SetDescription("d-pin", "part_imagenet", Path("/d/pin"), {"split": "test"}),
        ),
        ("tda:/d/tda/part", SetDescription("tda-part", "tda", Path("/d/tda/part"), {})),
        ("tda_od:/d/pairs,name=p", SetDescription("p", "tda_od", Path("/d/pairs"), {})),
    ],
)
def test_a_set_is_described_in_one_word(text: str, expected: SetDescription) -> None:
    assert SetDescription.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "tda:", "tda:/d,split=a", "/d/val.json,grouping", "/d/val.json,colour=red"]
)
def test_a_description_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="cannot be understood"):
        SetDescription.parse(text)


def test_a_coco_style_file_is_read_with_its_images_beside_it(tmp_path: Path) -> None:
    rle = encode(np.eye(4, dtype=bool))
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "wheel", "supercategory": "car"}],
        "annotations": [{"image_id": 1, "category_id": 1, "object_id": 1, "segmentation": rle}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    (annotated_object,) = SetDescription.parse(str(tmp_path / "val.json")).read()
    assert (annotated_object.image_path, annotated_object.object_class) == (
        tmp_path / "images" / "a.jpg",
        "car",
    )
    with pytest.raises(DataError, match="unknown grouping"):
        SetDescription.parse(f"{tmp_path / 'val.json'},grouping=colour").read()


def test_a_mask_survives_its_run_lengths() -> None:
    mask_hw = np.random.default_rng(0).random((7, 11)) > 0.5
    rle = json.loads(json.dumps(encode(mask_hw)))
    np.testing.assert_array_equal(decode(rle), mask_hw)
