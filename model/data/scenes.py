"""Photographs with named part masks, read from COCO-style JSON (one file a split)."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from model.errors import DataError
from model.types import BoolMask, RgbImage


@dataclass(frozen=True)
class Scene:
    """One object with its parts on one photograph, or a whole photograph with its named regions.

    object_class: what must match for another scene to serve as a reference; empty for a photograph of regions.
    part_rles: part name to the COCO RLEs whose union is the part.
    has_whole: whether the union of all parts is a thing of its own (an object, not a photograph).
    names_carry: whether a name means the same on other photographs ("wheel"), or only here ("region 3").
    """

    image_path: Path
    object_class: str
    part_rles: dict[str, list[Any]]
    has_whole: bool
    names_carry: bool

    def image(self) -> RgbImage:
        """Pixels (H, W, 3), RGB. Raises DataError when the file cannot be read."""
        pixels = cv2.imread(str(self.image_path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise DataError(
                f"{self.image_path} cannot be read", hint="check the path and that it is an image"
            )
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]

    def masks(self) -> dict[str, BoolMask]:
        """Part name to mask (H, W)."""
        return {
            name: np.any(np.stack([coco_mask.decode(rle).astype(bool) for rle in rles]), axis=0)
            for name, rles in self.part_rles.items()
        }


def read_scenes(json_path: Path, image_dir: Path, *, grouping: str) -> list[Scene]:
    """Scenes of a COCO-style part file, in the order of their file names.

    grouping: "object" makes a scene of each object (its annotations share image, supercategory and object_id);
        "photo" makes one of each photograph, its annotations named by category; "regions" likewise, but every
        annotation is a region of its own without a name that carries over.
    Raises DataError when the file is not of that form.
    """
    try:
        content = json.loads(json_path.read_text())
        categories = {c["id"]: c for c in content["categories"]}
        files = {i["id"]: i["file_name"] for i in content["images"]}
        grouped: dict[tuple[str, str, str], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for number, annotation in enumerate(content["annotations"]):
            category = categories[annotation["category_id"]]
            file_name = files[annotation["image_id"]]
            if grouping == "object":
                key = (file_name, category["supercategory"], str(annotation["object_id"]))
                part = category["name"]
            else:
                key = (file_name, "", "")
                part = category["name"] if grouping == "photo" else f"region {number}"
            grouped[key][part].append(annotation["segmentation"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{json_path} is not a part file ({type(error).__name__}: {error})",
            hint="expected images, categories and annotations with object_id and an RLE segmentation",
        ) from error
    return [
        Scene(
            image_path=image_dir / file_name,
            object_class=object_class,
            part_rles={name: rles for name, rles in sorted(parts.items())},
            has_whole=grouping == "object",
            names_carry=grouping != "regions",
        )
        for (file_name, object_class, _), parts in sorted(grouped.items(), key=lambda item: item[0])
    ]


def is_development(scene: Scene, share: float) -> bool:
    """Whether a training scene is kept apart to choose settings on: a stable choice by file name."""
    return zlib.crc32(scene.image_path.name.encode()) % 1000 < share * 1000
