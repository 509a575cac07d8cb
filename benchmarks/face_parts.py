"""Faces for `benchmarks.simulated_team`: `python -m benchmarks.face_parts CHECKOUT OUT`.

CHECKOUT: of github.com/massimomauro/FASSEG-repository (folder V2: 70 faces with coloured labels; Khan, Mauro, Leonardi:
Multi-class semantic segmentation of faces, ICIP 2015; no licence stated, so the photographs are not part of this
repository). OUT gets `team.json` (50 photographs to annotate), `fresh.json` (20 that no training sees) and `images/`,
in the form of docs/data-formats.md. The model that ships has seen neither them nor other faces' labels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.masks import encode
from model.types import BoolMask, RgbImage

COLOURS = {
    "skin": (255, 255, 0),
    "hair": (127, 0, 0),
    "eyes": (0, 0, 255),
    "nose": (0, 255, 255),
    "mouth": (0, 255, 0),
    "background": (255, 0, 0),
}
PARTS = tuple(name for name in COLOURS if name != "background")
SHORT_SIDE_PX = 448
MIXED = 40
"""Sum of differences to a label's colour from which on a pixel is a mixture of two, on their border."""
MIN_AREA_PX = 64
SPLITS = {"Train": 20, "Test": 50}
FRESH = 20
SHOWN_TWICE = {
    "Train": {1, 3, 5, 6, 7, 10, 15, 16, 17, 18, 19, 20},
    "Test": {1, 3, 5, 6, 7, 8, 11, 13, 17, 20, 23, 26, 30, 44},
}
"""People of whom there are two photographs, five of these pairs the same file: never fresh, lest a training sees them."""


def part_masks(coloured: RgbImage) -> dict[str, BoolMask]:
    """Masks (H, W) of the parts of a label image. Pixels of mixed colour belong to the nearest clean one's label."""
    distance = np.stack(
        [np.abs(coloured.astype(int) - colour).sum(axis=-1) for colour in COLOURS.values()], axis=-1
    )
    clean = distance.min(axis=-1) < MIXED
    label = distance.argmin(axis=-1)
    # the nearest clean pixel of each, by number; numbers start at 1, where the clean pixels are
    _, nearest = cv2.distanceTransformWithLabels(
        (~clean).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_number = np.zeros(int(nearest.max()) + 1, int)
    of_number[nearest[clean]] = label[clean]
    label = of_number[nearest]
    return {name: label == number for number, name in enumerate(COLOURS) if name in PARTS}


def make_set(checkout: Path, out: Path) -> dict[str, int]:
    """Writes the photographs and both part files; how many photographs each has."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    single = [name for name in _names() if name[1] not in SHOWN_TWICE[name[0]]]
    fresh = {single[int((place + 0.5) * len(single) / FRESH)] for place in range(FRESH)}
    counts = {}
    for file, names in (
        ("team", [n for n in _names() if n not in fresh]),
        ("fresh", [n for n in _names() if n in fresh]),
    ):
        images, annotations = [], []
        for image_id, (split, number) in enumerate(names, 1):
            image, masks = _read(checkout, split, number)
            file_name = f"{split.lower()}_{number:02}.png"
            cv2.imwrite(str(out / "images" / file_name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            height, width = image.shape[:2]
            images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
            annotations += [_annotation(image_id, name, mask) for name, mask in masks.items()]
        content = {
            "info": {"description": "FASSEG V2", "split": file},
            "images": images,
            "categories": [
                {"id": number, "name": name, "supercategory": "face"} for number, name in enumerate(PARTS, 1)
            ],
            "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
        }
        (out / f"{file}.json").write_text(json.dumps(content) + "\n")
        counts[file] = len(images)
    return counts


def _names() -> list[tuple[str, int]]:
    return [(split, number) for split, count in SPLITS.items() for number in range(1, count + 1)]


def _read(checkout: Path, split: str, number: int) -> tuple[RgbImage, dict[str, BoolMask]]:
    """The photograph and its parts of at least 64 pixels, no larger than the sets that the model learned from."""
    image = _pixels(checkout / "V2" / f"{split}_RGB" / f"{number}.bmp")
    masks = part_masks(_pixels(checkout / "V2" / f"{split}_Labels" / f"{number}.bmp"))
    height, width = image.shape[:2]
    scale = min(1.0, SHORT_SIDE_PX / min(height, width))
    size = round(width * scale), round(height * scale)
    if scale < 1:
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    kept = dict(_scaled(masks, size))
    return image, kept


def _scaled(masks: dict[str, BoolMask], size: tuple[int, int]) -> Iterator[tuple[str, BoolMask]]:
    for name, mask in masks.items():
        scaled = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        if np.count_nonzero(scaled) >= MIN_AREA_PX:
            yield name, scaled


def _pixels(path: Path) -> RgbImage:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise SystemExit(f"{path} cannot be read: name a checkout of massimomauro/FASSEG-repository")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _annotation(image_id: int, name: str, mask_hw: NDArray[np.bool_]) -> dict[str, Any]:
    rows, cols = np.nonzero(mask_hw)
    box = [cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1]
    return {
        "image_id": image_id,
        "category_id": 1 + PARTS.index(name),
        "object_id": 1,
        "segmentation": encode(mask_hw),
        "area": len(rows),
        "bbox": [int(side) for side in box],
        "iscrowd": 0,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Convert the checkout of FASSEG that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args(argv)
    print(make_set(arguments.checkout, arguments.out))


if __name__ == "__main__":
    main()
