"""The list of touching pairs: what is chosen, and what is written for `python -m model evaluate --data tda_od:...`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.random import default_rng

from benchmarks.thing_sets import SOURCES, Sets
from benchmarks.touching_pairs import (
    HIDDEN_SHARE,
    LIST_FILE,
    PAIRS_OF_A_CLASS,
    UNSEEN_SET,
    choose,
    leave_out,
    read_list,
    render,
    write,
    write_list,
)
from model.data.near_copies import read_excluded
from model.data.readers import SetDescription
from model.masks import encode

Boxes = dict[str, tuple[slice, slice]]
NEAR_COPY = "5.jpg"


def write_set(folder: Path, name: str, photographs: list[Boxes]) -> None:
    """A set whose photographs show rectangles, by name of the thing. Sand and sky are no things."""
    names = sorted({thing for boxes in photographs for thing in boxes})
    part_file = folder / SOURCES[name]
    (part_file.parent / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, boxes in enumerate(photographs):
        pixels = default_rng(number).integers(0, 60, (120, 160, 3)).astype(np.uint8)
        images.append({"id": number, "file_name": f"{number}.jpg"})
        for thing, box in boxes.items():
            mask_hw = np.zeros((120, 160), bool)
            mask_hw[box] = True
            pixels[mask_hw] = 100 + 20 * names.index(thing)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": names.index(thing),
                    "segmentation": encode(mask_hw),
                    "isthing": int(thing not in ("sand", "sky")),
                }
            )
        cv2.imwrite(str(part_file.parent / "images" / f"{number}.jpg"), pixels)
    categories = [{"id": number, "name": thing} for number, thing in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    part_file.write_text(json.dumps(content))


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    """Six photographs of a person with a kite, four of a car that touches nothing alive, bears, and three of a person on
    sand below the sky that no network is trained on."""
    person, kite = np.s_[30:80, 20:40], np.s_[20:40, 40:60]
    apart: Boxes = {"person": person, "kite": np.s_[20:40, 90:110]}
    write_set(
        tmp_path,
        "coco_mini",
        [*[{"person": person, "kite": kite} for _ in range(6)], apart, {"cup": person, "kite": kite}],
    )
    write_set(tmp_path, "coco_tiny", [{"car": np.s_[50:110, 20:140]} for _ in range(4)])
    write_set(tmp_path, "animals7", [{"bear": np.s_[30:70, 40:90]} for _ in range(3)])
    beach: Boxes = {"person": person, "sand": np.s_[80:120, 0:160], "sky": np.s_[0:30, 0:160]}
    write_set(tmp_path, UNSEEN_SET, [beach] * 3)
    return Sets.read(tmp_path)


@pytest.fixture
def near_copies(tmp_path: Path) -> Path:
    (tmp_path / "near_copies.json").write_text(json.dumps({"coco_mini": [NEAR_COPY]}))
    return tmp_path / "near_copies.json"


def test_pairs_that_touch_are_listed_but_no_near_copies_and_none_without_anything_alive(
    sets: Sets, near_copies: Path
) -> None:
    real = choose(sets, near_copies, default_rng(1))["real"]
    assert [pair.first.file_name for pair in real] == [f"{number}.jpg" for number in range(5)]
    assert {pair.object_class for pair in real} == {"kite+person"}


def test_unseen_pairs_are_of_a_val_split_and_the_ground_counts_but_no_background(
    sets: Sets, near_copies: Path
) -> None:
    unseen = choose(sets, near_copies, default_rng(1))["unseen"]
    assert [(pair.object_class, pair.first.source) for pair in unseen] == [("person+sand", UNSEEN_SET)] * 3
    assert SOURCES[UNSEEN_SET].endswith("val.json")
    listed = read_list(LIST_FILE)["unseen"]
    assert {thing.source for pair in listed for thing in (pair.first, pair.second)} == {UNSEEN_SET}
    assert 3 * len(listed) >= 100, "each pair is three masks: this thing, that thing, both"


def test_animals_are_pasted_onto_things_and_hide_some_of_them(sets: Sets, near_copies: Path) -> None:
    pasted = choose(sets, near_copies, default_rng(1))["pasted"]
    assert len(pasted) == PAIRS_OF_A_CLASS
    for pair in pasted:
        photograph, masks = render(sets, pair)
        assert photograph is not None
        car_hw, bear_hw = masks["car"], masks["bear"]
        assert not (car_hw & bear_hw).any()
        hidden = 1 - car_hw.sum() / sets.mask(pair.first).sum()
        assert HIDDEN_SHARE[0] - 0.02 <= hidden <= HIDDEN_SHARE[1] + 0.02
        inner = cv2.erode(bear_hw.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert np.abs(photograph[inner].astype(int) - 100).max() <= 15


def test_the_edge_of_a_cut_out_is_soft(sets: Sets, near_copies: Path) -> None:
    pair = choose(sets, near_copies, default_rng(1))["pasted"][0]
    photograph, masks = render(sets, pair)
    assert photograph is not None
    row = int(np.nonzero(masks["bear"])[0].mean())
    steps = np.abs(np.diff(photograph[row, :, 0].astype(int)))
    border = int(np.nonzero(masks["bear"][row])[0].min())
    assert 0 < steps[border - 1] < 40


def test_the_same_seed_gives_the_same_list(sets: Sets, near_copies: Path, tmp_path: Path) -> None:
    lists = [choose(sets, near_copies, default_rng(seed)) for seed in (1, 1, 2)]
    assert lists[0] == lists[1] != lists[2]
    write_list(tmp_path / "list.json", lists[0], seed=1)
    assert read_list(tmp_path / "list.json") == lists[0]


def test_what_is_written_is_read_as_an_evaluation_set(sets: Sets, near_copies: Path, tmp_path: Path) -> None:
    for name, pairs in choose(sets, near_copies, default_rng(1)).items():
        write(sets, pairs, tmp_path / "out" / name)
    real = SetDescription.parse(f"tda_od:{tmp_path / 'out' / 'real'}").read()
    pasted = SetDescription.parse(f"tda_od:{tmp_path / 'out' / 'pasted'}").read()
    assert {(one.object_class, *one.part_rles) for one in real} == {("kite+person", "kite", "person")}
    assert {(one.object_class, *one.part_rles) for one in pasted} == {("bear+car", "bear", "car")}
    assert all(one.image().shape == (120, 160, 3) for one in [*real, *pasted])


def test_listed_photographs_are_left_out_of_trainings_beside_the_near_copies(
    sets: Sets, near_copies: Path
) -> None:
    lists = choose(sets, near_copies, default_rng(1))
    for _ in range(2):
        leave_out(near_copies, lists)
    excluded = read_excluded(near_copies)
    assert UNSEEN_SET not in excluded
    assert excluded["coco_mini"] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", NEAR_COPY]
    assert excluded["coco_tiny"] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert set(excluded["animals7"]) == {pair.second.file_name for pair in lists["pasted"]}


def test_every_listed_class_has_a_reference_on_another_photograph() -> None:
    for pairs in read_list(LIST_FILE).values():
        photographs: dict[str, set[str]] = {}
        for pair in pairs:
            photographs.setdefault(pair.object_class, set()).add(pair.first.file_name)
        assert min(len(files) for files in photographs.values()) >= 2
