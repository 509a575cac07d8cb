"""Sets of photographs with the things on them, from which `benchmarks.touching_pairs` chooses its pairs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.masks import decode
from model.types import BoolMask

SOURCES = {
    "coco_mini": "more/coco_mini/all.json",
    "coco_tiny": "more/coco_tiny/all.json",
    "animals7": "more/animals7/all.json",
    "coco_panoptic100": "coco_panoptic100/val.json",
}
"""Part files of the sets, below the folder of the data; the folder `images` lies beside each."""
GROUNDS = frozenset(
    (
        "blanket",
        "dirt-merged",
        "floor-other-merged",
        "floor-wood",
        "grass-merged",
        "gravel",
        "pavement-merged",
        "platform",
        "playingfield",
        "railroad",
        "river",
        "road",
        "rock-merged",
        "rug-merged",
        "sand",
        "sea",
        "snow",
        "stairs",
        "table-merged",
        "water-other",
    )
)
"""What somebody can stand or lie on, of what COCO does not count as things; the rest of that is background."""


@dataclass(frozen=True)
class Thing:
    """An annotation of a set.

    Attributes:
        source: Name of the set.
        file_name: Its photograph.
        name: Its category.
        annotation: Number of the annotation in `all.json`.
    """

    source: str
    file_name: str
    name: str
    annotation: int


@dataclass
class Sets:
    """Annotations of the source sets, by set and photograph."""

    folder: Path
    things: dict[tuple[str, str], list[Thing]] = field(default_factory=lambda: defaultdict(list))
    rles: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Sets:
        """Read all sets of the folder of the data, without crowds and backgrounds."""
        sets = cls(folder)
        for source, part_file in SOURCES.items():
            content = json.loads((folder / part_file).read_text())
            names = {one["id"]: one["name"] for one in content["categories"]}
            files = {one["id"]: one["file_name"] for one in content["images"]}
            for one in content["annotations"]:
                thing = Thing(source, files[one["image_id"]], names[one["category_id"]], one["id"])
                if one.get("iscrowd") or not (one.get("isthing", True) or thing.name in GROUNDS):
                    continue
                sets.things[source, thing.file_name].append(thing)
                sets.rles[source, thing.annotation] = one["segmentation"]
        return sets

    def mask(self, thing: Thing) -> BoolMask:
        """The thing's mask (H, W) on its photograph."""
        return decode(self.rles[thing.source, thing.annotation])

    def path(self, thing: Thing) -> Path:
        """The thing's photograph."""
        return (self.folder / SOURCES[thing.source]).parent / "images" / thing.file_name

    def without(self, near_copies: Path) -> Iterator[tuple[tuple[str, str], list[Thing]]]:
        """Photographs with their things, but not near copies of photographs that are reported on."""
        left_out = json.loads(near_copies.read_text())
        for (source, file_name), things in sorted(self.things.items()):
            if file_name not in left_out.get(source, ()):
                yield (source, file_name), things
