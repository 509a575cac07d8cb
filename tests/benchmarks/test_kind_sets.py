from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from benchmarks.kind_sets import CocoFile, of_coco, salient_things

SIZE = (60, 80)


def write_export(folder: Path, copies: dict[str, int]) -> CocoFile:
    """Files of one export, each with a wrench and a hand; file name to its number of black columns."""
    images, annotations = [], []
    for number, (name, black_columns) in enumerate(copies.items()):
        pixels = np.full((*SIZE, 3), 200, np.uint8)
        pixels[:, :black_columns] = 0
        cv2.imwrite(str(folder / name), pixels)
        images.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        for category, left in ((1, 30), (2, 50)):
            corners = [left, 10, left + 15, 10, left + 15, 40, left, 40]
            annotations.append({"image_id": number, "category_id": category, "segmentation": [corners]})
    categories = [{"id": 1, "name": "042-adjustable-wrench"}, {"id": 2, "name": "Hand"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "all.json").write_text(json.dumps(content))
    return CocoFile(folder / "all.json", folder)


def test_of_the_copies_of_a_photograph_the_one_that_was_turned_least_is_taken_once(tmp_path: Path) -> None:
    copies = {"a_png.rf.1.png": 30, "a_png.rf.2.png": 2, "a_png.rf.3.png": 12, "b_png.rf.4.png": 0}
    first, second = of_coco([write_export(tmp_path, copies)])
    assert (first.name, second.name) == ("a", "b")
    assert (first.image_rgb[..., 0] == 0).sum() == 2 * SIZE[0]
    assert sorted(name for name, _ in first.masks) == ["adjustable_wrench", "hand"]


def test_only_the_names_that_are_asked_for_are_kept_under_their_new_names(tmp_path: Path) -> None:
    (one,) = of_coco([write_export(tmp_path, {"a.png": 0})], {"adjustable_wrench": "wrench"})
    ((name, mask_hw),) = one.masks
    assert name == "wrench"
    assert mask_hw[20, 35]
    assert not mask_hw[20, 60]


def test_salient_things_are_whole_pieces_without_crumbs_and_without_horses(tmp_path: Path) -> None:
    for folder in ("images", "ground_truth_mask"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    mask = np.zeros(SIZE, np.uint8)
    mask[5:30, 5:30] = mask[40:55, 50:70] = 255
    mask[2, 75] = 255
    for number in ("0001", "0005"):  # 5 is a horse
        cv2.imwrite(str(tmp_path / "data/images" / f"{number}.jpg"), np.full((*SIZE, 3), 90, np.uint8))
        cv2.imwrite(str(tmp_path / "data/ground_truth_mask" / f"{number}.png"), mask)
    (one,) = salient_things(tmp_path)
    assert one.name == "ecssd_0001"
    assert sorted(int(mask_hw.sum()) for _, mask_hw in one.masks) == [15 * 20, 25 * 25]
