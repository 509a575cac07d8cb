"""Further kinds of things to learn from: `python -m benchmarks.kind_sets CHECKOUTS OUT [SET ...]`.

Mostly several things of different names on one photograph: a click and a reference say which one is meant, and that it is
meant as a whole. CHECKOUTS holds checkouts of these public repositories, each in a folder of its name:

    steel_bridge       tjboise/Bridge_inspection (2917a73): parts of bridges from below; no licence stated
    endoscope_robot    FujinNiazi/instance-segmentation-based-angle-detection (0a05d3f): Apache-2.0
    kitchen_goods      J-Mojica/Home-Depot-Semantic-Segmentation (3658870): MIT
    household_clutter  Runnlion/NCSU-ARLab-ICRA2025-RMGC (7b6dca7): things in a box from above; no licence stated
    microcontrollers   Grod-d/classifier_microcontrollers (482d529): MIT
    breadboard         liuandy1207/BreadCrumb (a739d74): electronic components; CC BY 4.0
    safety_wear        magicmercedes/maskrcnn-ppe-detection (15e29c9): what workers wear; no licence stated
    predators          Hungcui/SegmentImg (55d864d): wolves, tigers and the like; no licence stated
    mandarins          prel2014/Mandarina (bf12ee4): many of one kind on a table; no licence stated
    hand_tools         congtongc/Rokey (7ca2b02): thin tools, one by one and in heaps; CC BY 4.0
    salient_things     yunusgunay/Salient-Object-Segmentation (68cf2a2): ECSSD; MIT, the photographs' licence not stated
    salient_scenes     frankLeo123/Saliency_Matlab (265e547): PASCAL-S; no licence stated
    cutlery            cristian-castro-a/mask-rcnn-test (809ae90): no licence stated. Never trained on: it measures

OUT/SET gets `all.json` and `images/`, in the form of docs/data-formats.md. The photographs are not in this repository.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.part_sets import Labelled, Sets, around, coco_mask_of, convert, on_top, polygon, read_pixels
from model.masks import evenly_spaced, union
from model.types import BoolMask, RgbImage

MOST = 400
"""Photographs of a set that are taken, evenly spaced."""
SMALLEST_SHARE = 0.0005
"""Masks that cover less of their photograph are left out."""
BLACK = 8
"""Pixels below are black: turned copies of a photograph have black corners."""
BRIDGE_COLOURS: dict[tuple[int, ...], str] = {
    (128, 0, 0): "bearing",
    (0, 128, 0): "bracing",
    (128, 128, 0): "deck",
    (0, 0, 128): "floor_beam",
    (128, 0, 128): "girder",
    (0, 128, 128): "pier",
}
TOOLS = (
    "adjustable_spanner backsaw calipers cutting_pliers drill gas_wrench gun hammer hand handsaw needle_nose_pliers "
    "pliers ratchet screwdriver tape_measure utility_knife wrench"
)
"""By number in the label files."""
HORSES = "5 6 7 34 42 43 54 56 58 84 107 165 271 315 316 499 532 541 559 602 708 747 893 917 931"
"""Photographs of ECSSD with horses and the like, found by eye: horses are kept for measuring by others."""
HORSES_IN_SCENES = (
    "28 37 70 78 102 127 129 139 150 157 165 168 171 191 195 198 212 240 257 267 268 269 276 298 314 317 328 350 377 "
    "382 383 428 449 467 476 484 505 531 546 554 587 597 634 644 663 668 690 693 731 773 789 805 806 811"
)
"""The same of PASCAL-S."""
SALIENT = 100
"""Of PASCAL-S's grey: how many of its twelve people found a thing salient, as a share of 255."""
PREDATORS = ("cheetah", "fox", "hyena", "lion", "tiger", "wolf")


@dataclass(frozen=True)
class CocoFile:
    """An annotation file in COCO's format, and the folder of its images."""

    path: Path
    images: Path


def roboflow(folder: Path, *splits: str) -> list[CocoFile]:
    """The files of an export of Roboflow."""
    return [CocoFile(folder / split / "_annotations.coco.json", folder / split) for split in splits]


def of_coco(
    files: Iterable[CocoFile], names: Mapping[str, str] | None = None, below: Sequence[str] = ()
) -> Iterator[Labelled]:
    """Each original photograph once, in the copy that was turned least.

    Args:
        files: Annotation files.
        names: Category to the name that it gets; others are left out. None keeps all as they are.
        below: Names that lie below all others.
    """
    found: dict[str, tuple[Path, dict[str, Any], list[tuple[str, dict[str, Any]]]]] = {}
    for file in files:
        content = json.loads(file.path.read_text())
        categories = {one["id"]: _plain(one["name"]) for one in content["categories"]}
        if names is not None:
            categories = {key: names[name] for key, name in categories.items() if name in names}
        annotations = defaultdict(list)
        for one in content["annotations"]:
            if one["category_id"] in categories and one.get("segmentation"):
                annotations[one["image_id"]].append((categories[one["category_id"]], one))
        for image in content["images"]:
            path, original = file.images / Path(image["file_name"]).name, _original(image["file_name"])
            if not annotations[image["id"]] or not path.exists():
                continue
            if original not in found or _black_share(path) < _black_share(found[original][0]):
                found[original] = path, image, annotations[image["id"]]
    for original, (path, image, listed) in evenly_spaced(sorted(found.items()), MOST):
        image_rgb = read_pixels(path)
        if image_rgb.shape[:2] == (image["height"], image["width"]):
            pieces = [(name, coco_mask_of(one, image)) for name, one in listed]
            yield _labelled(original, image_rgb, pieces, below)


def _plain(name: str) -> str:
    """A category's name without its number: "042-adjustable-wrench" is "adjustable_wrench"."""
    return re.sub(r"^\d+-", "", name).lower().replace("-", "_").replace(" ", "_")


def _original(file_name: str) -> str:
    """Name of the photograph that Roboflow made a file of, or of the file."""
    name = Path(file_name).name
    name = name.split(".rf.")[0] if ".rf." in name else Path(name).stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", re.sub(r"_(jpe?g|png|webp)$", "", name, flags=re.IGNORECASE))


def _black_share(path: Path) -> float:
    pixels = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_4)
    return 1.0 if pixels is None else float((pixels.max(axis=2) < BLACK).mean())


def _labelled(
    name: str, image_rgb: RgbImage, pieces: list[tuple[str, BoolMask]], below: Sequence[str] = ()
) -> Labelled:
    """Small pieces lie on top of large ones."""
    pieces.sort(
        key=lambda piece: (below.index(piece[0]) if piece[0] in below else len(below), -piece[1].sum())
    )
    masks = [(name, mask_hw) for name, mask_hw in on_top(pieces) if mask_hw.mean() > SMALLEST_SHARE]
    return Labelled(name, image_rgb, masks)


def steel_bridge(checkout: Path) -> Iterator[Labelled]:
    """One mask per name and photograph. What is no part of a bridge is black."""
    folder = checkout / "VOCdevkit/VOC2007"
    paths = sorted((folder / "JPEGImages").glob("*.jpg"), key=lambda path: path.stem.zfill(5))
    for path in evenly_spaced(paths, MOST):
        labels = folder / "SegmentationClass/element" / f"{path.stem}.png"
        if labels.exists():
            yield Labelled(
                f"bridge_{path.stem.zfill(3)}", read_pixels(path), _of_colours(labels, BRIDGE_COLOURS)
            )


def predators(checkout: Path) -> Iterator[Labelled]:
    """One mask per animal; per photograph where that is not known."""
    found = [
        (kind, path)
        for kind in PREDATORS
        for path in sorted((checkout / "data" / kind / "JPEGImages").glob("*.png"))
        if (path.parents[1] / "SegmentationClass" / path.name).exists()
    ]
    for kind, path in evenly_spaced(found, MOST):
        by_animal = path.parents[1] / "SegmentationObject" / path.name
        labels = by_animal if by_animal.exists() else path.parents[1] / "SegmentationClass" / path.name
        colours = np.unique(read_pixels(labels).reshape(-1, 3), axis=0)
        animals = {tuple(int(part) for part in colour): kind for colour in colours if colour.any()}
        yield Labelled(f"{kind}_{path.stem}", read_pixels(path), _of_colours(labels, animals))


def _of_colours(path: Path, names: Mapping[tuple[int, ...], str]) -> list[tuple[str, BoolMask]]:
    """Masks of a label image, one a colour."""
    labels_rgb = read_pixels(path)
    masks = [(name, (labels_rgb == np.array(colour)).all(axis=2)) for colour, name in names.items()]
    return [(name, mask_hw) for name, mask_hw in masks if mask_hw.mean() > SMALLEST_SHARE]


def safety_wear(checkout: Path) -> Iterator[Labelled]:
    """Helmets, vests, goggles and ear muffs that people wear."""
    for split in ("train", "val"):
        folder = checkout / "dataset" / split
        listed = json.loads((folder / "via_region_data.json").read_text()).values()
        for one in sorted(listed, key=lambda one: str(one["filename"])):
            if not (folder / one["filename"]).exists():
                continue
            image_rgb = read_pixels(folder / one["filename"])
            regions = one["regions"].values() if isinstance(one["regions"], dict) else one["regions"]
            pieces = [
                (region["region_attributes"]["label"].strip(), polygon(region, *image_rgb.shape[:2]))
                for region in regions
            ]
            if pieces:
                yield _labelled(f"{split}_{_original(one['filename'])}", image_rgb, pieces)


def mandarins(checkout: Path) -> Iterator[Labelled]:
    """Their names are grades and sizes, so all are mandarins."""
    folders = [checkout / "dataset" / split for split in ("train", "val")]
    files = [CocoFile(folder / "via_region_data.json", folder) for folder in folders]
    for one in of_coco(files):
        yield Labelled(one.name, one.image_rgb, [("mandarin", mask_hw) for _, mask_hw in one.masks])


def endoscope_robot(checkout: Path) -> Iterator[Labelled]:
    """Its tip, cut out of stills of a few scenes: six hundred of them are much alike."""
    folder = checkout / "training_datasets/600_3"
    files = [
        CocoFile(folder / f"annotations/instances_{split}_fixed.json", folder / split)
        for split in ("train", "val")
    ]
    names = {"robot": "tip", "camera": "camera", "line": "wire"}
    for one in evenly_spaced(list(of_coco(files, names, below=("tip", "camera"))), 60):
        crop = around(union(mask_hw for _, mask_hw in one.masks))
        masks = [(name, np.ascontiguousarray(mask_hw[crop])) for name, mask_hw in one.masks]
        yield Labelled(one.name, np.ascontiguousarray(one.image_rgb[crop]), masks)


def kitchen_goods(checkout: Path) -> Iterator[Labelled]:
    """Mugs, knives, toasters and the like on photographs of the web."""
    folder = checkout / "data"
    return of_coco([CocoFile(folder / "annotations/instances_default.json", folder / "images")])


def household_clutter(checkout: Path) -> Iterator[Labelled]:
    """Twenty things, several of them in one grey box."""
    return of_coco(roboflow(checkout / "dataset", "train", "valid"))


def boards_and_components(checkout: Path) -> Iterator[Labelled]:
    """Boards on all kinds of ground, and components on a desk: two exports of the same layout."""
    return of_coco(roboflow(checkout / "dataset", "valid", "test", "train"))


def cutlery(checkout: Path) -> Iterator[Labelled]:
    """Forks, knives and spoons, whose handles look alike."""
    folder = checkout / "data"
    return of_coco([CocoFile(folder / "annotations/instances.json", folder / "images")])


def hand_tools(checkout: Path) -> Iterator[Labelled]:
    """One copy of each photograph of an export that has up to three, flipped or brightened."""
    folder = checkout / "Calibration&Yolo_v11/Ultralytics/tools_data1"
    found: dict[str, Path] = {}
    for split in ("valid", "train"):
        for path in sorted((folder / split / "images").glob("*.jpg")):
            found.setdefault(_original(path.name), path)
    for original, path in found.items():
        image_rgb = read_pixels(path)
        height, width = image_rgb.shape[:2]
        pieces = []
        for line in (path.parents[1] / "labels" / f"{path.stem}.txt").read_text().splitlines():
            number, *corners = line.split()
            corners_xy = np.array(corners, float).reshape(-1, 2) * (width, height)
            drawn = np.zeros((height, width), np.uint8)
            cv2.fillPoly(drawn, [corners_xy.round().astype(np.int32)], 1)
            pieces.append((TOOLS.split()[int(number)], drawn > 0))
        if pieces:
            yield _labelled(original, image_rgb, pieces)


def salient_things(checkout: Path) -> Iterator[Labelled]:
    """Whatever stands out, without names. Things that touch are one mask."""
    for path in sorted((checkout / "data/images").glob("*.jpg")):
        if path.stem.lstrip("0") not in HORSES.split():
            values = read_pixels(checkout / "data/ground_truth_mask" / f"{path.stem}.png")[..., 0]
            yield Labelled(f"ecssd_{path.stem}", read_pixels(path), _things(values > 127))


def salient_scenes(checkout: Path) -> Iterator[Labelled]:
    """Several things a photograph, without names. Each grey is a thing, or several of equal rank that do not touch."""
    for path in sorted((checkout / "config/pascal").glob("*.jpg"), key=lambda path: int(path.stem)):
        if path.stem not in HORSES_IN_SCENES.split():
            values = read_pixels(checkout / "config/mask" / f"{path.stem}.png")[..., 0]
            things = [
                thing for grey in np.unique(values[values >= SALIENT]) for thing in _things(values == grey)
            ]
            yield Labelled(f"pascal_s_{path.stem.zfill(3)}", read_pixels(path), things)


def _things(mask_hw: BoolMask) -> list[tuple[str, BoolMask]]:
    """Pieces of a mask that are not crumbs: at least a seventh of the largest one."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    large = [number for number in range(1, count) if areas[number - 1] * 7 >= areas.max()]
    return [("thing", labels == number) for number in large if areas[number - 1] > 0.005 * mask_hw.size]


SETS: Sets = {
    "steel_bridge": ("Bridge_inspection", "steel_bridge", steel_bridge),
    "endoscope_robot": ("instance-segmentation-based-angle-detection", "endoscope_robot", endoscope_robot),
    "kitchen_goods": ("Home-Depot-Semantic-Segmentation", "", kitchen_goods),
    "household_clutter": ("NCSU-ARLab-ICRA2025-RMGC", "", household_clutter),
    "microcontrollers": ("classifier_microcontrollers", "", boards_and_components),
    "breadboard": ("BreadCrumb", "", boards_and_components),
    "safety_wear": ("maskrcnn-ppe-detection", "", safety_wear),
    "predators": ("SegmentImg", "", predators),
    "mandarins": ("Mandarina", "", mandarins),
    "hand_tools": ("Rokey", "", hand_tools),
    "salient_things": ("Salient-Object-Segmentation", "", salient_things),
    "salient_scenes": ("Saliency_Matlab", "", salient_scenes),
    "cutlery": ("mask-rcnn-test", "", cutlery),
}
"""Of each set the folder of its checkout, the class of its objects ("" where each name is one), and what reads it."""


if __name__ == "__main__":
    convert(SETS, __doc__)
