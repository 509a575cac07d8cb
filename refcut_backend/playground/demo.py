"""The demo photographs on the playground: what a newcomer can click on at once, with references to choose from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcut_backend.errors import BadRequestError

PHOTOGRAPHS = Path(__file__).parent / "label_studio_demo"
PARTS_FILE = PHOTOGRAPHS / "parts.json"
WHOLE = "Whole"


@dataclass(frozen=True)
class DemoPart:
    """A part of a demo photograph that can serve as a reference.

    Attributes:
        label: What a person calls it.
        positive_hw: The part, (H, W).
        negative_hw: The other parts, (H, W).
    """

    label: str
    positive_hw: NDArray[np.bool_]
    negative_hw: NDArray[np.bool_]


@dataclass(frozen=True)
class DemoPhotograph:
    """A photograph of the demo.

    Attributes:
        name: File name.
        kind: What is on it: "car" or "clothes".
        data: The file.
    """

    name: str
    kind: str
    data: bytes

    @property
    def key(self) -> str:
        """Key of the photograph among the uploads: the same in every process."""
        return f"demo-{hashlib.sha256(self.data).hexdigest()[:32]}"


@cache
def photographs() -> tuple[DemoPhotograph, ...]:
    """The demo's photographs by file name; none if they are not installed."""
    paths = sorted(PHOTOGRAPHS.glob("*.jpg"))
    return tuple(
        DemoPhotograph(path.name, "car" if path.name.startswith("car") else "clothes", path.read_bytes())
        for path in paths
    )


@cache
def parts(name: str) -> tuple[DemoPart, ...]:
    """The parts of a demo photograph, single ones by name and then the whole thing.

    Args:
        name: File name of the photograph.

    Raises:
        BadRequestError: If there is no such photograph.
    """
    content = _parts_file()
    numbers = [image["id"] for image in content["images"] if image["file_name"] == name]
    if not numbers:
        raise BadRequestError("there is no such demo photograph", hint="choose one from the list")
    labels = {category["id"]: category["name"] for category in content["categories"]}
    masks: dict[str, NDArray[np.bool_]] = {}
    for annotation in content["annotations"]:
        if annotation["image_id"] == numbers[0]:
            label = str(labels[annotation["category_id"]])
            mask_hw = coco_mask(annotation["segmentation"])
            masks[label] = masks[label] | mask_hw if label in masks else mask_hw
    every_hw = np.logical_or.reduce(list(masks.values()))
    found = [
        DemoPart(label.replace("_", " ").capitalize(), mask_hw, every_hw & ~mask_hw)
        for label, mask_hw in sorted(masks.items())
    ]
    return (*found, DemoPart(WHOLE, every_hw, np.zeros_like(every_hw)))


def part(name: str, label: str) -> DemoPart:
    """One part of a demo photograph. Raises BadRequestError if there is none of that label."""
    for found in parts(name):
        if found.label == label:
            return found
    raise BadRequestError("the demo photograph has no such part", hint="choose one from the list")


@cache
def _parts_file() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(PARTS_FILE.read_text())
    return content


def coco_mask(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """Decodes COCO's compressed run lengths without pycocotools, which the web process does not load.

    Args:
        rle: `size` (height, width) and `counts`: differences of run lengths, five bits a character, column by column.

    Returns:
        (H, W).
    """
    runs: list[int] = []
    value = shift = 0
    for sign in rle["counts"]:
        code = ord(sign) - 48
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    height, width = rle["size"]
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T
