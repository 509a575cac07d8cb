"""Annotated objects: `AnnotatedObject`, an image with named part masks, and the reader of the COCO-style part file.

Training, fine-tuning and evaluation all work on annotated objects. Other formats are read in `model.data.readers`.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from model.errors import DataError
from model.masks import decode, union
from model.types import BoolMask, RgbImage


@dataclass(frozen=True)
class AnnotatedObject:
    """An annotated object with its parts on one image, or a whole image with its named regions.

    Attributes:
        image_path: The image file.
        object_class: Another annotated object must have the same class to serve as a reference; empty for an image of
            regions.
        part_rles: COCO RLEs by name of the part; the part is their union.
        has_whole: Whether the union of all parts is an object of its own; False for an image of regions.
        names_carry: Whether a name means the same on other images ("wheel"), or only on this one ("region 3").
    """

    image_path: Path
    object_class: str
    part_rles: dict[str, list[Any]]
    has_whole: bool
    names_carry: bool

    @property
    def has_single_annotation(self) -> bool:
        """Whether there is a single annotation."""
        return sum(map(len, self.part_rles.values())) == 1

    def image(self) -> RgbImage:
        """Read the image.

        Returns:
            RGB (H, W, 3), uint8.

        Raises:
            DataError: If the file cannot be read.
        """
        pixels = cv2.imread(str(self.image_path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise DataError(
                f"{self.image_path} cannot be read", hint="check the path and that it is an image"
            )
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]

    def masks(self) -> dict[str, BoolMask]:
        """Decode the masks (H, W), by name of the part."""
        return {name: union(decode(rle) for rle in rles) for name, rles in self.part_rles.items()}


def read_annotated_objects(json_path: Path, image_dir: Path, *, grouping: str) -> list[AnnotatedObject]:
    """Read a COCO-style part file (docs/data-formats.md).

    Args:
        json_path: The part file.
        image_dir: Folder of its images.
        grouping: "object" makes one annotated object per object (its annotations share image, supercategory and
            object_id). "photo" makes one annotated object per image, whose parts are named by category. "regions"
            makes one annotated object per image, in which every annotation is a region whose name has no meaning on
            other images.

    Returns:
        Annotated objects in the order of their file names.

    Raises:
        DataError: If the file cannot be read or has another form.
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
        AnnotatedObject(
            image_path=image_dir / file_name,
            object_class=object_class,
            part_rles={name: rles for name, rles in sorted(parts.items())},
            has_whole=grouping == "object",
            names_carry=grouping != "regions",
        )
        for (file_name, object_class, _), parts in sorted(grouped.items(), key=lambda item: item[0])
    ]


def is_development(annotated_object: AnnotatedObject, share: float) -> bool:
    """Tell whether an annotated object belongs to the development set, on which settings are chosen.

    The choice depends on the file name only, so it is the same in every run.

    Args:
        annotated_object: An annotated object of the training split.
        share: Share of the images that belong to the development set, 0 to 1.
    """
    return zlib.crc32(annotated_object.image_path.name.encode()) % 1000 < share * 1000
