"""The formats of an export. Each takes one image after another, and each of its files appears complete or not at all.

| format | class | files |
| --- | --- | --- |
| coco-rle, coco-polygons | `_Coco` | one JSON file |
| yolo | `_Yolo` | one text file per image |
| label-maps | `_LabelMaps` | one PNG per image |
| masks | `_LabelMasks` | one PNG per image and label |
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from model.files import atomic_write
from model.masks import decode, union
from refcut_backend.exporting.annotations import ExportedImage, ExportedObject
from refcut_backend.exporting.outlines import Ring, mask_rings, one_ring
from refcut_backend.exporting.store import FileJournal, fingerprint
from refcut_backend.references.parse import mask_to_png

FORMATS = ("coco-rle", "coco-polygons", "yolo", "label-maps", "masks")
YOLO_DIGITS = 6
LONGEST_NAME = 120
_UNSAFE = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Target:
    """What all formats of an export share.

    Attributes:
        out: The output folder.
        categories: The labels. Category ids of COCO and label maps count from 1 in this order, classes of YOLO from 0.
        tolerance_px: Largest distance in pixels between a polygon and the edge of its mask; 0 is exact.
    """

    out: Path
    categories: Sequence[str]
    tolerance_px: float


@dataclass(frozen=True)
class NamedImage:
    """An image on its way into the files.

    Attributes:
        image: The image with its objects.
        file_name: Name of the image's own file.
        stem: Name of the files that are written for it, without ending; no other image has the same.
        url: The image's address without what may be secret in it.
        source: Changes with everything about the image that is exported.
    """

    image: ExportedImage
    file_name: str
    stem: str
    url: str
    source: str


AddImage = Callable[[NamedImage], None]


@contextmanager
def open_format(name: str, target: Target) -> Iterator[AddImage]:
    """Writes one of `FORMATS` while the block runs; yields what takes an image.

    After an exception in the block, a file that holds all images keeps its former content, and files of single images
    that were written stay.
    """
    if name.startswith("coco"):
        with atomic_write(target.out / f"{name}.json") as temporary, temporary.open("w") as file:
            coco = _Coco(file, target, with_polygons=name == "coco-polygons")
            yield coco.add
            coco.end()
        return
    kinds: dict[str, type[_FilesPerImage]] = {"yolo": _Yolo, "label-maps": _LabelMaps, "masks": _LabelMasks}
    journal = FileJournal(target.out, name)
    yield kinds[name](target, journal).add
    journal.finish()


class _Coco:
    """A COCO file with one annotation per object. Annotations are written at once, images at the end."""

    def __init__(self, file: TextIO, target: Target, *, with_polygons: bool) -> None:
        self._file = file
        self._tolerance_px = target.tolerance_px
        self._with_polygons = with_polygons
        self._ids = _ids(target.categories)
        self._images: list[dict[str, Any]] = []
        self._count = 0
        categories = [{"id": number, "name": label} for label, number in self._ids.items()]
        file.write(f'{{"info": {json.dumps({"description": "exported by RefCut for Label Studio"})},\n')
        file.write(f'"licenses": [],\n"categories": {json.dumps(categories)},\n"annotations": [')

    def add(self, named: NamedImage) -> None:
        image, number = named.image, len(self._images) + 1
        self._images.append(
            {
                "id": number,
                "file_name": named.file_name,
                "width": image.width,
                "height": image.height,
                "task_id": image.task_id,
                "annotation_id": image.annotation_id,
                "image_tag": image.image_tag,
                "url": named.url,
            }
        )
        for one in image.objects:
            self._file.write((",\n" if self._count else "\n") + json.dumps(self._annotation(one, number)))

    def end(self) -> None:
        self._file.write(f'\n],\n"images": {json.dumps(self._images)}}}\n')

    def _annotation(self, one: ExportedObject, image_id: int) -> dict[str, Any]:
        self._count += 1
        segmentation: Any = one.rle
        if self._with_polygons:
            segmentation = [ring.reshape(-1).tolist() for ring in _object_rings(one, self._tolerance_px)]
        return {
            "id": self._count,
            "image_id": image_id,
            "category_id": self._ids[one.label],
            "segmentation": segmentation,
            "area": one.area,
            "bbox": one.bbox,
            "iscrowd": 0,
            "attributes": {
                "reference": one.is_reference,
                "region_id": one.region_id,
                "score": one.score,
            },
        }


class _FilesPerImage(ABC):
    """Writes what has one or several files per image, and only those whose content has changed."""

    def __init__(self, target: Target, journal: FileJournal) -> None:
        self._target = target
        self._journal = journal
        self._settings = json.dumps([list(target.categories), target.tolerance_px])

    @abstractmethod
    def add(self, named: NamedImage) -> None:
        """Writes the files of an image."""

    def _write(self, path: Path, named: NamedImage, content: Callable[[], bytes]) -> None:
        source = fingerprint(named.source, self._settings)
        if not self._journal.is_current(path, source):
            with atomic_write(path) as temporary:
                temporary.write_bytes(content())
            self._journal.wrote(path, source)


class _Yolo(_FilesPerImage):
    """YOLO's format for segmentation: a line per object, with its class and one polygon in fractions of the image."""

    def __init__(self, target: Target, journal: FileJournal) -> None:
        super().__init__(target, journal)
        self._classes = {label: number for number, label in enumerate(target.categories)}
        names = "".join(f"  {number}: {json.dumps(label)}\n" for label, number in self._classes.items())
        _write_text(target.out / "yolo" / "classes.txt", "".join(f"{label}\n" for label in target.categories))
        _write_text(target.out / "yolo" / "data.yaml", f"path: .\nnames:\n{names}")

    def add(self, named: NamedImage) -> None:
        """An image without objects gets an empty file, which YOLO reads as background."""
        path = self._target.out / "yolo" / "labels" / f"{named.stem}.txt"
        self._write(path, named, lambda: self._lines(named.image).encode())

    def _lines(self, image: ExportedImage) -> str:
        lines = []
        for one in image.objects:
            ring = one_ring(_object_rings(one, self._target.tolerance_px)) / (image.width, image.height)
            corners = " ".join(f"{number:.{YOLO_DIGITS}f}" for number in ring.clip(0, 1).reshape(-1))
            lines.append(f"{self._classes[one.label]} {corners}\n")
        return "".join(lines)


class _LabelMaps(_FilesPerImage):
    """One grey PNG per image: 0 is the background, and every other value the category id of the object on top."""

    def add(self, named: NamedImage) -> None:
        path = self._target.out / "label-maps" / f"{named.stem}.png"
        self._write(path, named, lambda: self._png(named.image))

    def _png(self, image: ExportedImage) -> bytes:
        """Where objects overlap, the smaller one is on top, so that a part shows on its whole."""
        ids = _ids(self._target.categories)
        pixels = np.zeros((image.height, image.width), np.uint8 if len(ids) < 256 else np.uint16)
        for one in sorted(image.objects, key=lambda one: -one.area):
            pixels[decode(one.rle)] = ids[one.label]
        ok, data = cv2.imencode(".png", pixels)
        assert ok, "OpenCV always writes PNG"
        return data.tobytes()


class _LabelMasks(_FilesPerImage):
    """One black and white PNG per image and label: the union of the label's objects."""

    def __init__(self, target: Target, journal: FileJournal) -> None:
        super().__init__(target, journal)
        ids = _ids(target.categories)
        self._folders = unique_names((label, file_name(label), str(number)) for label, number in ids.items())

    def add(self, named: NamedImage) -> None:
        for label in dict.fromkeys(one.label for one in named.image.objects):
            path = self._target.out / "masks" / self._folders[label] / f"{named.stem}.png"
            self._write(path, named, lambda of=label: _mask_png(named.image, of))  # type: ignore[misc]


def _mask_png(image: ExportedImage, label: str) -> bytes:
    return mask_to_png(union(decode(one.rle) for one in image.objects if one.label == label))


def _object_rings(one: ExportedObject, tolerance_px: float) -> list[Ring]:
    """Returns an object's outlines in pixels: those that the annotator sees, or else those of its mask."""
    if one.polygons is not None:
        return [np.array(corners, np.float64).reshape(-1, 2) for corners in one.polygons]
    return mask_rings(decode(one.rle), tolerance_px)


def _ids(categories: Sequence[str]) -> dict[str, int]:
    return {label: number for number, label in enumerate(categories, start=1)}


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def file_name(text: str) -> str:
    """Returns a text as a name that every file system takes."""
    return _UNSAFE.sub("_", text).strip("._")[:LONGEST_NAME] or "unnamed"


def unique_names(wanted: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Gives every key a name of its own, in any case of letters.

    Args:
        wanted: (key, wanted name, what is appended where several keys want the same name).
    """
    rows = list(wanted)
    counts = Counter(name.lower() for _, name, _ in rows)
    taken = {name.lower() for _, name, _ in rows if counts[name.lower()] == 1}
    names = {}
    for key, name, suffix in rows:
        if counts[name.lower()] > 1:
            name = f"{name}-{suffix}"
            while name.lower() in taken:
                name += "_"
            taken.add(name.lower())
        names[key] = name
    return names
