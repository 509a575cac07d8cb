"""Things with named parts: `python -m benchmarks.part_sets CHECKOUTS OUT [SET ...]`.

The model that ships has learned from the first four; white blood cells measure it.

CHECKOUTS holds checkouts of these public repositories, each in a folder of its name:

    ants         CS-433/ml-project-2-kalamariunionen (9b8d16a): ants from the side; no licence
                 stated, photographs of AntWeb
    food_plates  rezayoga/Instance-Aware-Semantic-Segmentation-for-Food-Calorie-Estimation-using-Mask-R-CNN (b6ad058):
                 plates of Indonesian food from above; MIT
    seedlings    ArtemZhelnin/plant_project (7d7564b): wheat and arugula with roots; CC BY 4.0
    corridor     buinghia3101/DHCN_dataset.v1i.png-mask-semantic (3573e52): halls of one building; CC BY 4.0
    white_blood_cells  zxaoyou/segmentation_WBC (fa9c016): one cell under the microscope each; GPL-3.0. Never trained on

OUT/SET gets `all.json` and `images/`, in the form of docs/data-formats.md. The photographs are not in this repository.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from model.masks import bounding_box, encode, union
from model.types import BoolMask, Box, RgbImage

LONGEST_PX = 800
"""Larger photographs are shrunk to this longer side."""
MIN_AREA_PX = 64
JPEG_QUALITY = 90
ANTS = 600
"""Photographs of ants that are taken, evenly spaced."""
ANT_PARTS = {0: "head", 3: "thorax", 4: "abdomen", 5: "eye"}
CORRIDOR_PARTS = {
    1: "cabinet",
    2: "ceiling",
    3: "chair",
    4: "door",
    5: "elevator",
    6: "railing",
    7: "floor",
    8: "stairs",
    9: "plant",
    10: "wall",
}
NUCLEUS_ABOVE, CYTOPLASM_ABOVE = 190, 60
"""Grey values. A nucleus is 255 and cytoplasm 128; a few label images have stray values up to 50 on the background."""
FOODS = {
    "piring": "plate",
    "nasi": "rice",
    "tahu kukus": "steamed_tofu",
    "tahu goreng": "fried_tofu",
    "tempe kukus": "steamed_tempeh",
    "tempe goreng": "fried_tempeh",
    "tempe goreng tepung": "battered_tempeh",
    "lele goreng": "fried_catfish",
    "kembung goreng": "fried_mackerel",
}


@dataclass(frozen=True)
class Labelled:
    """A photograph with its masks.

    Attributes:
        name: Name of its file, without ending.
        image_rgb: (H, W, 3), uint8.
        masks: (name, mask (H, W)), one a piece; they do not overlap.
        object_class: Class of the thing whose parts the masks are; None takes that of the set.
    """

    name: str
    image_rgb: RgbImage
    masks: list[tuple[str, BoolMask]]
    object_class: str | None = None


def ants(checkout: Path) -> Iterator[Labelled]:
    """One ant on each photograph. Legs and antennae have no mask."""
    folder = checkout / "Pytorch-UNet/data"
    photographs = sorted((folder / "images_folder_5").glob("*_1.png"))
    labels = {
        path.name.removesuffix("_msk.png"): path for path in (folder / "masks_folder_5").glob("*_msk.png")
    }
    labelled = [path for path in photographs if path.name.removesuffix("_1.png") in labels]
    for place in range(min(ANTS, len(labelled))):
        path = labelled[place * len(labelled) // min(ANTS, len(labelled))]
        name = path.name.removesuffix("_1.png")
        yield Labelled(name, read_pixels(path), masks_of_values(labels[name], ANT_PARTS))


def food_plates(checkout: Path) -> Iterator[Labelled]:
    """Pieces of food on a plate; "plate" is what is left to be seen of it."""
    done = set()
    for split in ("train", "val", "test"):
        folder = checkout / "dataset.stage2" / split
        listed = json.loads((folder / "via_region_data.json").read_text()).values()
        for one in sorted(listed, key=lambda one: str(one["filename"])):
            if one["filename"] in done:
                continue
            done.add(one["filename"])
            image_rgb = read_pixels(folder / one["filename"])
            regions = one["regions"]
            pieces = [
                (FOODS[region["region_attributes"]["name"]], polygon(region, *image_rgb.shape[:2]))
                for region in (regions.values() if isinstance(regions, dict) else regions)
            ]
            pieces.sort(key=lambda piece: (piece[0] != "plate", -int(piece[1].sum())))
            name = f"plate_{Path(one['filename']).stem.zfill(3)}"
            yield Labelled(name, image_rgb, on_top(pieces))


def seedlings(checkout: Path) -> Iterator[Labelled]:
    """Plants on a dark table, cut out of large photographs."""
    done = set()
    for split in ("train", "valid", "test"):
        folder = checkout / "training" / split
        content = json.loads((folder / "_annotations.coco.json").read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        annotations = defaultdict(list)
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        for image in sorted(content["images"], key=lambda image: str(image["file_name"])):
            name = image["file_name"].split(".rf.")[0].replace("_jpg", "")
            pieces = [
                (names[one["category_id"]], coco_mask_of(one, image)) for one in annotations[image["id"]]
            ]
            pieces = [(part, mask_hw) for part, mask_hw in pieces if part in ("leaf", "stem", "root")]
            if name in done or not pieces:
                continue
            done.add(name)
            pieces.sort(key=lambda piece: -int(piece[1].sum()))
            crop = around(union(mask_hw for _, mask_hw in pieces))
            masks = [(part, np.ascontiguousarray(mask_hw[crop])) for part, mask_hw in on_top(pieces)]
            yield Labelled(name, np.ascontiguousarray(read_pixels(folder / image["file_name"])[crop]), masks)


def corridor(checkout: Path) -> Iterator[Labelled]:
    """Stills of one walk. The train split has three noisy copies of each still and is left out."""
    for split in ("valid", "test"):
        for path in sorted((checkout / split).glob("*.jpg")):
            labels = path.with_name(f"{path.stem}_mask.png")
            name = path.name.split(".rf.")[0].replace("_jpg", "")
            masks = [
                (part, mask_hw)
                for part, mask_hw in masks_of_values(labels, CORRIDOR_PARTS)
                if mask_hw.mean() > 0.002
            ]
            yield Labelled(name, read_pixels(path), masks)


def white_blood_cells(checkout: Path) -> Iterator[Labelled]:
    """Nucleus and cytoplasm. All photographs of the second microscope, a third of those of the first."""
    for folder, step in (("Dataset 2", 1), ("Dataset 1", 3)):
        for path in sorted((checkout / folder).glob("*.bmp"))[::step]:
            values = cv2.imread(str(path.with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
            image_rgb = read_pixels(path)
            if values is None or values.shape != image_rgb.shape[:2]:
                continue
            nucleus = values > NUCLEUS_ABOVE
            masks = [("nucleus", nucleus), ("cytoplasm", (values > CYTOPLASM_ABOVE) & ~nucleus)]
            if all(mask.sum() > MIN_AREA_PX for _, mask in masks):
                yield Labelled(f"{folder.replace(' ', '')}_{path.stem}", image_rgb, masks)


Sets = dict[str, tuple[str, str, Callable[[Path], Iterator[Labelled]]]]

SETS: Sets = {
    "ants": ("ml-project-2-kalamariunionen", "ant", ants),
    "food_plates": (
        "Instance-Aware-Semantic-Segmentation-for-Food-Calorie-Estimation-using-Mask-R-CNN",
        "food_plate",
        food_plates,
    ),
    "seedlings": ("plant_project", "seedling", seedlings),
    "corridor": ("DHCN_dataset.v1i.png-mask-semantic", "", corridor),
    "white_blood_cells": ("segmentation_WBC", "cell", white_blood_cells),
}
"""Of each set the folder of its checkout, the class of its objects ("" where each name is one), and what reads it."""


def make_set(
    labelled: Iterator[Labelled], object_class: str, out: Path, part_file: str = "all.json"
) -> dict[str, int]:
    """Writes photographs and part file; how many photographs and masks there are."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    categories: dict[tuple[str, str], int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for one in labelled:
        image_rgb, masks = _shrunk(one)
        if not masks:
            continue
        height, width = image_rgb.shape[:2]
        file_name = f"{one.name}.jpg"
        cv2.imwrite(
            str(out / "images" / file_name),
            cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR),
            [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
        )
        images.append({"id": len(images) + 1, "file_name": file_name, "width": width, "height": height})
        class_of_object = object_class if one.object_class is None else one.object_class
        for part, mask_hw in masks:
            category = categories.setdefault((class_of_object, part), len(categories) + 1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": category,
                    "object_id": 1 if class_of_object else category,
                    "segmentation": encode(mask_hw),
                    "area": int(mask_hw.sum()),
                    "bbox": _xywh(bounding_box(mask_hw)),
                    "iscrowd": 0,
                }
            )
    content = {
        "images": images,
        "categories": [
            {"id": number, "name": part, "supercategory": class_of_object or part}
            for (class_of_object, part), number in categories.items()
        ],
        "annotations": annotations,
    }
    (out / part_file).write_text(json.dumps(content) + "\n")
    return {"photographs": len(images), "masks": len(annotations)}


def _shrunk(one: Labelled) -> tuple[RgbImage, list[tuple[str, BoolMask]]]:
    """The photograph and its masks of at least `MIN_AREA_PX`, no larger than `LONGEST_PX`."""
    height, width = one.image_rgb.shape[:2]
    scale = min(1.0, LONGEST_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image_rgb = one.image_rgb
    if scale < 1:
        image_rgb = np.asarray(cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    masks = [
        (part, cv2.resize(mask_hw.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0)
        for part, mask_hw in one.masks
    ]
    return image_rgb, [(part, mask_hw) for part, mask_hw in masks if mask_hw.sum() >= MIN_AREA_PX]


def read_pixels(path: Path) -> RgbImage:
    """Pixels as they are stored: the polygons of food_plates ignore how the camera was turned."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise SystemExit(
            f"{path} cannot be read: name checkouts as `python -m benchmarks.part_sets --help` says"
        )
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def masks_of_values(path: Path, parts: dict[int, str]) -> list[tuple[str, BoolMask]]:
    """Masks of a label image, one a value."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise SystemExit(f"{path} cannot be read")
    return [(part, values == value) for value, part in parts.items() if (values == value).any()]


def polygon(region: dict[str, Any], height: int, width: int) -> BoolMask:
    """Mask of a region of the VGG Image Annotator."""
    shape = region["shape_attributes"]
    corners_xy = np.stack([shape["all_points_x"], shape["all_points_y"]], axis=1).astype(np.int32)
    drawn = np.zeros((height, width), np.uint8)
    cv2.fillPoly(drawn, [corners_xy], 1)
    return drawn > 0


def coco_mask_of(annotation: dict[str, Any], image: dict[str, Any]) -> BoolMask:
    """Mask of an annotation of COCO's format."""
    size = image["height"], image["width"]
    outlines = annotation["segmentation"]
    if isinstance(outlines, list):
        outlines = [outline for outline in outlines if len(outline) >= 6]
        if not outlines:
            return np.zeros(size, bool)
        found = coco_mask.merge(coco_mask.frPyObjects(outlines, *size))
    else:
        found = coco_mask.frPyObjects(outlines, *size) if isinstance(outlines["counts"], list) else outlines
    return np.asarray(coco_mask.decode(found), bool)


def on_top(pieces: Sequence[tuple[str, BoolMask]]) -> list[tuple[str, BoolMask]]:
    """Later pieces lie on top of earlier ones."""
    top_hw = np.zeros(pieces[0][1].shape, int)
    for number, (_, mask_hw) in enumerate(pieces, 1):
        top_hw[mask_hw] = number
    return [(part, top_hw == number) for number, (part, _) in enumerate(pieces, 1)]


def around(mask_hw: BoolMask) -> tuple[slice, slice]:
    """A crop with a margin of a fifth of the mask's longer side."""
    box = bounding_box(mask_hw)
    margin = max(60, int(0.2 * (max(box.height, box.width) - 1)))
    return (
        slice(max(0, box.row_min - margin), box.row_max + margin),
        slice(max(0, box.col_min - margin), box.col_max + margin),
    )


def _xywh(box: Box) -> list[int]:
    return [int(side) for side in (box.col_min, box.row_min, box.width, box.height)]


def convert(sets: Sets, description: str | None, argv: Sequence[str] | None = None) -> None:
    """Convert the checkouts that a command line names.

    Args:
        sets: As `SETS`.
        description: For `--help`.
        argv: The command line; None takes that of the process.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", type=Path, metavar="CHECKOUTS")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("sets", nargs="*", choices=[*sets, []], default=[], metavar="SET")
    arguments = parser.parse_args(argv)
    for name in arguments.sets or sets:
        folder, object_class, read = sets[name]
        print(name, make_set(read(arguments.checkouts / folder), object_class, arguments.out / name))


if __name__ == "__main__":
    convert(SETS, __doc__)
