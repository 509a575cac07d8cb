"""Reads the masks of submitted annotations, object by object, in the form that all export formats are made from.

One object is one region, or the pieces of one answer: a mask of several pieces becomes polygons "id", "id-2", "id-3".
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from model.masks import encode
from refcut_backend.errors import BadMaskError, ImageError, RefCutError
from refcut_backend.images.address import image_of_task
from refcut_backend.label_studio.label_config import (
    NEGATIVE_REFERENCE_CHOICE,
    REFERENCE_CHOICE,
    Control,
    ProjectControls,
    image_of_item,
)
from refcut_backend.label_studio.payloads import AnnotationPayload, ListedTask
from refcut_backend.label_studio.regions import (
    MAX_EDGE_PX,
    MAX_MASK_PIXELS,
    REGION_KINDS,
    UNFORESEEN,
    Region,
    check_result,
    is_mask_region,
    joined_mask,
    read_region,
)
from refcut_backend.references.parse import region_roles

Choice = Literal["newest", "all"]
"""Which annotation of a task is exported: the one that was saved last, or each of them."""

log = logging.getLogger("refcut.exporting")

DOTS = "dots"
PROMPT_BOXES = "boxes that were prompts"
NEGATIVE_REFERENCES = "negative references"
EMPTY_REGIONS = "empty regions"


@dataclass(frozen=True)
class ExportedObject:
    """An object with one label.

    Attributes:
        label: The label.
        is_reference: Whether a region of it is marked "Reference".
        region_id: Id of the region in Label Studio; of the first piece if there are several.
        score: Score of the prediction that the mask came from; None for masks that were drawn by hand.
        rle: The mask as compressed COCO run lengths: `size` [height, width] and `counts`.
        area: Number of the mask's pixels.
        bbox: [x, y, width, height] in pixels.
        polygons: Corners as the annotator sees them, one list [x, y, x, y, ...] in pixels per piece. None for brush masks
            and rectangles: their outlines are found in the mask.
    """

    label: str
    is_reference: bool
    region_id: str
    score: float | None
    rle: dict[str, Any]
    area: int
    bbox: list[int]
    polygons: list[list[float]] | None


@dataclass(frozen=True)
class ExportedImage:
    """An image with the objects of one annotation.

    Attributes:
        task_id: Task of the image.
        annotation_id: The annotation.
        image_tag: Name of the image tag; of a later page with its index (`image_name`).
        address: Address of the image, as it stands in the task's data.
        width: Width of the image in pixels, as the browser shows it.
        height: Height of the image in pixels.
        objects: In the order of the annotation.
    """

    task_id: int
    annotation_id: int
    image_tag: str
    address: str
    width: int
    height: int
    objects: list[ExportedObject]


@dataclass(frozen=True)
class ExportedTask:
    """All that is exported of a task.

    Attributes:
        images: One per exported annotation and image.
        problems: What could not be exported although it should be, one sentence each.
        omitted: What is left out on purpose: what it is, and how often.
    """

    images: list[ExportedImage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    omitted: dict[str, int] = field(default_factory=dict)


SizeOf = Callable[[int, str], tuple[int, int]]
"""Takes a task id and an image's address; returns the image's height and width in pixels. May raise RefCutError."""


def chosen(annotations: Sequence[AnnotationPayload], choice: Choice) -> list[AnnotationPayload]:
    """Returns those of a task's annotations that are exported; never skipped ones."""
    submitted = [annotation for annotation in annotations if not annotation.was_cancelled]
    in_order = sorted(submitted, key=lambda annotation: (annotation.updated_at, annotation.id))
    return in_order[-1:] if choice == "newest" else in_order


def read_task(
    task: ListedTask, annotations: Iterable[AnnotationPayload], controls: ProjectControls, size_of: SizeOf
) -> ExportedTask:
    """Reads what is exported of a task. What cannot be read is named in `problems` and never raises.

    Args:
        task: The task.
        annotations: Its annotations to export.
        controls: The controls of the project's label config.
        size_of: Reads an image's size if the annotation lacks it, because it has no region.
    """
    found = ExportedTask()
    omitted: Counter[str] = Counter()
    tags = {c.to_name: c for c in (*controls.regions, *controls.clicks)}
    for annotation in annotations:
        where = f"task {task.id}, annotation {annotation.id}"
        try:
            check_result(annotation.result)
            reader = _AnnotationReader(task, annotation, controls, found.problems, omitted)
            images = [reader.image(tag, size_of) for tag in tags.values()]
        except BadMaskError as error:
            found.problems.append(f"{where}: {error.message}")
        except UNFORESEEN as error:
            log.exception("an annotation is left out", extra={"annotation": annotation.id})
            found.problems.append(f"{where}: cannot be read ({type(error).__name__})")
        else:
            found.images.extend(image for image in images if image is not None)
    found.omitted.update(omitted)
    return found


@dataclass(frozen=True)
class _Drawn:
    """A region with what its `Region` does not hold."""

    region: Region
    region_id: str
    score: float | None


class _AnnotationReader:
    """Reads one annotation; problems and omissions go to the task's."""

    def __init__(
        self,
        task: ListedTask,
        annotation: AnnotationPayload,
        controls: ProjectControls,
        problems: list[str],
        omitted: Counter[str],
    ) -> None:
        self._task = task
        self._annotation = annotation
        self._controls = controls
        self._problems = problems
        self._omitted = omitted
        self._drawn = self._read_regions()

    def image(self, tag: Control, size_of: SizeOf) -> ExportedImage | None:
        """The objects on an image; None if the image has no address or no size."""
        try:
            address = image_of_task(self._task.data, tag)
            height, width = self._size(tag.to_name, address, size_of)
        except RefCutError as error:
            self._problem(error.message)
            return None
        here = [drawn for drawn in self._drawn if drawn.region.to_name == tag.to_name]
        objects = []
        for label, pieces in _objects(here):
            try:
                found = _exported_object(label, pieces, height, width)
            except BadMaskError as error:
                self._problem(f"region {pieces[0].region_id} ({label}): {error.message}")
                continue
            if found is None:
                self._omitted[EMPTY_REGIONS] += 1
            else:
                objects.append(found)
        return ExportedImage(self._task.id, self._annotation.id, tag.to_name, address, width, height, objects)

    def _size(self, to_name: str, address: str, size_of: SizeOf) -> tuple[int, int]:
        for drawn in self._drawn:
            if drawn.region.to_name == to_name:
                return drawn.region.height, drawn.region.width
        for item in self._annotation.result:
            if image_of_item(item) == to_name and (stated := _stated_size(item)) is not None:
                return stated
        try:
            return size_of(self._task.id, address)
        except RefCutError as error:
            raise ImageError(
                f"it has no region, and its image's size cannot be read: {error.message}"
            ) from None

    def _read_regions(self) -> list[_Drawn]:
        roles = region_roles(self._annotation.result, self._controls.roles)
        drawn = []
        for item in self._annotation.result:
            region_id = str(item.get("id"))
            if not self._is_exported(item, region_id):
                continue
            try:
                region = read_region(item, roles.get(region_id))
            except BadMaskError as error:
                self._problem(f"region {region_id}: {error.message}")
                continue
            if region is None or not region.labels:
                self._problem(f"region {region_id} has no label")
            elif region.role == NEGATIVE_REFERENCE_CHOICE:
                self._omitted[NEGATIVE_REFERENCES] += 1
            else:
                drawn.append(_Drawn(region, region_id, _score(item)))
        return drawn

    def _is_exported(self, item: dict[str, Any], region_id: str) -> bool:
        """Whether an item is a mask; counts or names what is left out."""
        kind, tool = item.get("type"), item.get("from_name")
        if is_mask_region(item, self._controls):
            return True
        if kind == "keypointlabels":
            self._omitted[DOTS] += 1
        elif kind in REGION_KINDS and any(tool == box.name for box in self._controls.boxes):
            self._omitted[PROMPT_BOXES] += 1
        elif kind in REGION_KINDS:
            self._problem(f"region {region_id}: its tool {tool!r} is no longer in the label config")
        elif isinstance(kind, str) and "original_width" in item and kind != "choices":
            self._omitted[f"regions of type {kind}"] += 1
        return False

    def _problem(self, text: str) -> None:
        self._problems.append(f"task {self._task.id}, annotation {self._annotation.id}: {text}")


def _objects(drawn: Sequence[_Drawn]) -> list[tuple[str, list[_Drawn]]]:
    """Groups regions to objects: (label, its region or pieces), in the order of the annotation."""
    grouped: dict[tuple[str, str], list[_Drawn]] = {}
    for one in drawn:
        base, _, number = one.region_id.rpartition("-")
        for label in dict.fromkeys(one.region.labels):
            is_piece = number.isdigit() and (label, base) in grouped
            grouped.setdefault((label, base if is_piece else one.region_id), []).append(one)
    return [(label, pieces) for (label, _), pieces in grouped.items()]


def _exported_object(label: str, pieces: Sequence[_Drawn], height: int, width: int) -> ExportedObject | None:
    """Returns None for an empty mask. Raises BadMaskError if a piece is damaged."""
    mask = joined_mask([piece.region for piece in pieces], height, width)
    if not mask.any():
        return None
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(cols[0])
    polygons = None
    if all(piece.region.kind == "polygonlabels" for piece in pieces):
        polygons = [_corners(piece.region) for piece in pieces]
    return ExportedObject(
        label=label,
        is_reference=any(piece.region.role == REFERENCE_CHOICE for piece in pieces),
        region_id=pieces[0].region_id,
        score=pieces[0].score,
        rle=encode(mask),
        area=int(np.count_nonzero(mask)),
        bbox=[left, top, int(cols[-1]) - left + 1, int(rows[-1]) - top + 1],
        polygons=polygons,
    )


def _corners(region: Region) -> list[float]:
    in_pixels = np.asarray(region.value["points"], np.float64) / 100 * [region.width, region.height]
    return [round(float(number), 3) for number in in_pixels.reshape(-1)]


def _stated_size(item: dict[str, Any]) -> tuple[int, int] | None:
    """The height and width of the image as a dot or another region states them."""
    height, width = item.get("original_height"), item.get("original_width")
    if not isinstance(height, int) or not isinstance(width, int):
        return None
    is_possible = min(height, width) > 0 and max(height, width) <= MAX_EDGE_PX
    return (height, width) if is_possible and height * width <= MAX_MASK_PIXELS else None


def _score(item: dict[str, Any]) -> float | None:
    score = item.get("score")
    return float(score) if isinstance(score, int | float) and not isinstance(score, bool) else None
