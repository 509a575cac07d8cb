"""The sets that `benchmarks.part_sets` makes can be trained on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.part_sets import LONGEST_PX, Labelled, corridor, food_plates, make_set, white_blood_cells
from model.data.annotated_objects import read_annotated_objects
from model.types import BoolMask, RgbImage


def box(size: tuple[int, int], rows: slice, cols: slice) -> BoolMask:
    mask_hw = np.zeros(size, bool)
    mask_hw[rows, cols] = True
    return mask_hw


def grey(size: tuple[int, int]) -> RgbImage:
    return np.full((*size, 3), 90, np.uint8)


def test_large_photographs_are_shrunk_with_their_masks_and_specks_are_dropped(tmp_path: Path) -> None:
    size = (1000, 2 * LONGEST_PX)
    leaf = box(size, slice(0, 500), slice(0, LONGEST_PX))
    speck = box(size, slice(900, 910), slice(0, 10))
    counts = make_set(
        iter([Labelled("a", grey(size), [("leaf", leaf), ("stem", speck)])]), "seedling", tmp_path
    )
    assert counts == {"photographs": 1, "masks": 1}
    (plant,) = read_annotated_objects(tmp_path / "all.json", tmp_path / "images", grouping="object")
    assert plant.image().shape == (500, LONGEST_PX, 3)
    masks = plant.masks()
    assert masks.keys() == {"leaf"}
    assert np.array_equal(masks["leaf"], leaf[::2, ::2])


def test_parts_of_things_of_different_classes_do_not_share_a_name(tmp_path: Path) -> None:
    size = (40, 60)
    parts = [
        ("part_0", box(size, slice(5, 30), slice(5, 20))),
        ("part_1", box(size, slice(5, 30), slice(20, 50))),
    ]
    make_set(iter([Labelled(kind, grey(size), parts, kind) for kind in ("tiger", "wrench")]), "", tmp_path)
    things = read_annotated_objects(tmp_path / "all.json", tmp_path / "images", grouping="object")
    assert [thing.object_class for thing in things] == ["tiger", "wrench"]
    assert all(thing.masks().keys() == {"part_0", "part_1"} for thing in things)


def test_pieces_of_food_lie_on_the_plate_and_a_photograph_that_is_listed_twice_counts_once(
    tmp_path: Path,
) -> None:
    def region(name: str, left: int, right: int) -> dict[str, object]:
        outline = {
            "name": "polygon",
            "all_points_x": [left, right, right, left],
            "all_points_y": [10, 10, 90, 90],
        }
        return {"shape_attributes": outline, "region_attributes": {"name": name}}

    listed = {"filename": "7.jpg", "regions": {"0": region("nasi", 20, 50), "1": region("piring", 10, 90)}}
    for split in ("train", "val", "test"):
        folder = tmp_path / "dataset.stage2" / split
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "7.jpg"), grey((100, 100)))
        (folder / "via_region_data.json").write_text(json.dumps({"7": listed}))
    (one,) = food_plates(tmp_path)
    masks = dict(one.masks)
    assert (one.name, list(masks)) == ("plate_007", ["plate", "rice"])
    assert masks["rice"][50, 30]
    assert not (masks["rice"] & masks["plate"]).any()
    assert masks["plate"][50, 70]


def test_a_cell_has_nucleus_and_cytoplasm_and_every_third_photograph_of_the_first_set_counts(
    tmp_path: Path,
) -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[10:50, 10:50], labels[20:40, 20:40], labels[0:3, 0:3] = 128, 255, 12
    for folder, count in (("Dataset 1", 4), ("Dataset 2", 2)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            cv2.imwrite(str(tmp_path / folder / f"{number:03}.bmp"), grey((60, 60)))
            cv2.imwrite(str(tmp_path / folder / f"{number:03}.png"), labels)
    cells = list(white_blood_cells(tmp_path))
    assert [one.name for one in cells] == ["Dataset2_000", "Dataset2_001", "Dataset1_000", "Dataset1_003"]
    masks = dict(cells[0].masks)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"nucleus": 400, "cytoplasm": 1200}
    assert not (masks["nucleus"] & masks["cytoplasm"]).any()


def test_a_checkout_without_its_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "valid").mkdir()
    cv2.imwrite(str(tmp_path / "valid" / "still.rf.1.jpg"), grey((40, 40)))
    with pytest.raises(SystemExit, match=r"still.rf.1_mask.png cannot be read"):
        list(corridor(tmp_path))
