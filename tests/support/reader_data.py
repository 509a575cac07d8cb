"""A small feature cache and a configuration for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from model.data.feature_cache import write_features
from model.training.reader_config import ReaderTraining, evaluation_objects, training_objects
from tests.support.synthetic import TINY_FROZEN, drawn_image, random_network

SIZE_PX = 112


def write_part_file(
    folder: Path, photographs: int, pieces: dict[str, list[tuple[int, int, int, int]]]
) -> None:
    """Writes parts.json and images: every photograph shows the same boxes (top, bottom, left, right) by name."""
    (folder / "images").mkdir(parents=True)
    annotations: list[dict[str, Any]] = []
    for number in range(photographs):
        write_image(folder / "images" / f"{number}.png", number)
        for category, boxes in enumerate(pieces.values(), 1):
            for top, bottom, left, right in boxes:
                mask = np.zeros((96, 128), np.uint8)
                mask[top:bottom, left:right] = 1
                rle = coco_mask.encode(np.asfortranarray(mask))
                rle["counts"] = rle["counts"].decode()
                annotations.append(
                    {"image_id": number, "category_id": category, "object_id": 0, "segmentation": rle}
                )
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(photographs)],
        "annotations": annotations,
        "categories": [
            {"id": number, "name": name, "supercategory": "fish"} for number, name in enumerate(pieces, 1)
        ],
    }
    (folder / "parts.json").write_text(json.dumps(content))


def write_image(path: Path, seed: int) -> None:
    """A drawn picture of 96 x 128 px."""
    cv2.imwrite(str(path), drawn_image(96, 128, seed))


def make_config(folder: Path, **options: Any) -> ReaderTraining:
    """A training on `folder`/parts.json. options: of `ReaderTraining`, or of its one set."""
    own = {name: options.pop(name) for name in ("grouping", "targets") if name in options}
    one = {"json_path": folder / "parts.json", "image_dir": folder / "images", "grouping": "object"} | own
    given = {"sets": {"fish": one}, "development_share": 0.0, "evaluation_minutes": 1000.0} | options
    return ReaderTraining.model_validate(given)


def write_cache(config: ReaderTraining, cache: Path) -> None:
    """All crops that the configuration asks for."""
    network = random_network(TINY_FROZEN)
    for number in range(config.crops):
        for name in config.sets:
            folder = cache / f"{name}-{number}"
            write_features(network, training_objects(config, name), folder, number, SIZE_PX, "digest")
    for name in config.evaluation:
        write_features(network, evaluation_objects(config, name), cache / f"{name}-0", 0, SIZE_PX, "digest")
