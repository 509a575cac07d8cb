"""Reads what a project's annotations teach, from Label Studio: masks by label, logged clicks, images, references."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from model.data.snapshot import CocoRle, SnapshotMask, SnapshotReference, SnapshotScene
from refcut_backend.clicks.log import ClickLog
from refcut_backend.errors import BadMaskError, ImageError, LabelStudioError, RefCutError
from refcut_backend.images.address import TaskImage, image_of_task
from refcut_backend.images.cache import shrunk
from refcut_backend.images.decode import fitted_mask
from refcut_backend.label_studio.label_config import ProjectControls
from refcut_backend.label_studio.payloads import AnnotationPayload, ListedTask, Timestamp
from refcut_backend.label_studio.tasks import AnnotationSource, GoneError, SourceError
from refcut_backend.references.registry import References, StoredReference
from refcut_backend.training.masks import LabelMask, click_sessions, read_training_masks

SUFFIX = ".png"
QUICK_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)


@dataclass(frozen=True)
class StoredImage:
    """content: SHA-256 of the pixels as they are stored, which names the file. height, width: of those.

    full_height, full_width: of the image as the browser shows it.
    """

    content: str
    height: int
    width: int
    full_height: int
    full_width: int

    @property
    def file_name(self) -> str:
        return f"{self.content}{SUFFIX}"


def content_of(file_name: str) -> str:
    """The hash that names a stored image's file."""
    return file_name.removesuffix(SUFFIX)


class ProjectImages:
    """PNG files in one folder. Larger images are kept at the size at which clicks are computed on them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, image: NDArray[np.uint8]) -> StoredImage:
        """Stores an image, RGB (H, W, 3), unless its pixels are there. Raises OSError when the disk is full."""
        working = shrunk("", image)
        pixels = np.ascontiguousarray(working.pixels)
        height, width = pixels.shape[:2]
        content = hashlib.sha256(f"{height}x{width} ".encode() + pixels.tobytes()).hexdigest()
        stored = StoredImage(content, height, width, working.height, working.width)
        path = self._folder / stored.file_name
        if not path.exists():
            ok, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), QUICK_PNG)
            if not ok:
                raise ImageError("the image cannot be written as PNG")
            self._write(path, data.tobytes())
        return stored

    def put_into(self, folder: Path, file_name: str) -> None:
        """The stored file in another folder too, without a copy where the file system can do that."""
        target = folder / file_name
        try:
            os.link(self._folder / file_name, target)
        except OSError:
            shutil.copyfile(self._folder / file_name, target)

    def _write(self, path: Path, data: bytes) -> None:
        """Whole or not at all: a run may be killed at any time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise


ReadImage = Callable[[TaskImage], NDArray[np.uint8]]
"""The image at full size, RGB (H, W, 3). Raises RefCutError."""
OnTask = Callable[[int, int], None]
"""(tasks read, tasks in all). May raise to end the reading."""
LABEL_STUDIO_IS_AWAY = frozenset({LabelStudioError.code, "token"})


@dataclass
class Gathered:
    """annotations: [annotation id, task id, sortable `updated_at`] of everything that was read, also of what teaches
    nothing. scenes, references: their files are in the project's images. problems: what was left out, a sentence each.
    """

    annotations: list[tuple[int, int, str]] = field(default_factory=list)
    scenes: list[SnapshotScene] = field(default_factory=list)
    references: list[SnapshotReference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Gatherer:
    """Reads one project once. What is damaged is left out and named; only Label Studio being away ends it."""

    def __init__(
        self,
        project_id: int,
        controls: ProjectControls,
        source: AnnotationSource,
        read_image: ReadImage,
        images: ProjectImages,
        clicks: ClickLog,
        references: References,
        max_references: int,
    ) -> None:
        self._project_id = project_id
        self._controls = controls
        self._source = source
        self._read_image = read_image
        self._images = images
        self._clicks = clicks
        self._references = references
        self._max_references = max_references
        self._seen: dict[TaskImage, StoredImage | RefCutError] = {}

    def gather(self, on_task: OnTask) -> Gathered:
        """Raises RefCutError when Label Studio cannot be read, OSError when the disk is full."""
        gathered = Gathered()
        tasks = [task for part in self._source.annotated_since(Timestamp()) for task in part]
        for number, task in enumerate(tasks):
            on_task(number, len(tasks))
            self._task(task, gathered)
        for label in sorted(self._controls.region_labels):
            self._label_references(label, gathered)
        return gathered

    def _task(self, task: ListedTask, gathered: Gathered) -> None:
        try:
            annotations = self._source.annotations(task.id)
        except GoneError:
            return
        clicks_of = self._clicks.last_clicks(self._project_id, task.id)
        for annotation in sorted(annotations, key=lambda annotation: annotation.id):
            if annotation.was_cancelled:
                continue
            gathered.annotations.append((annotation.id, task.id, annotation.updated_at))
            try:
                gathered.scenes += self._scenes(task, annotation, clicks_of)
            except RefCutError as error:
                _raise_if_away(error)
                gathered.problems.append(f"task {task.id}, annotation {annotation.id}: {error}")

    def _scenes(
        self, task: ListedTask, annotation: AnnotationPayload, clicks_of: dict[str, list[list[Any]]]
    ) -> list[SnapshotScene]:
        """One for each image that the annotation has masks on."""
        scenes = []
        for to_name, masks in read_training_masks(annotation.result, self._controls).items():
            image = self._image(TaskImage(self._project_id, task.id, self._address(task, to_name)))
            scenes.append(
                SnapshotScene(
                    file_name=image.file_name,
                    width=image.width,
                    height=image.height,
                    annotation=f"{annotation.id}-{to_name}",
                    masks=[found for mask in masks if (found := _snapshot_mask(mask, image, clicks_of))],
                )
            )
        return [scene for scene in scenes if scene.masks]

    def _address(self, task: ListedTask, to_name: str) -> str:
        control = next(control for control in self._controls.masks if control.to_name == to_name)
        return image_of_task(task.data, control.image_field)

    def _image(self, where: TaskImage) -> StoredImage:
        """Asks for each image once; one that cannot be had is not asked for again."""
        if where not in self._seen:
            try:
                self._seen[where] = self._images.keep(self._read_image(where))
            except RefCutError as error:
                _raise_if_away(error)
                self._seen[where] = error
        found = self._seen[where]
        if isinstance(found, RefCutError):
            raise found
        return found

    def _label_references(self, label: str, gathered: Gathered) -> None:
        for chosen in self._references.newest(self._project_id, label, self._max_references):
            stored = self._references.load(chosen.id)
            if stored is None or stored.project_id != self._project_id:
                continue
            try:
                gathered.references.append(self._reference(label, stored))
            except RefCutError as error:
                _raise_if_away(error)
                gathered.problems.append(f"reference of '{label}' in task {stored.task_id}: {error}")

    def _reference(self, label: str, stored: StoredReference) -> SnapshotReference:
        image = self._image(TaskImage(stored.project_id, stored.task_id, stored.image_address))
        negative_hw = stored.negative_hw
        return SnapshotReference(
            label=label,
            file_name=image.file_name,
            positive=_rle(_fitted(stored.positive_hw, image)),
            negative=None if negative_hw is None else _rle(_fitted(negative_hw, image)),
            version=stored.version,
        )


def _snapshot_mask(
    mask: LabelMask, image: StoredImage, clicks_of: dict[str, list[list[Any]]]
) -> SnapshotMask | None:
    """None for a mask that vanishes at the size at which the image is kept."""
    mask_hw = _fitted(mask.mask_hw, image)
    if not mask_hw.any():
        return None
    sessions = click_sessions(mask.region_ids, clicks_of, image.height, image.width)
    return SnapshotMask(mask.label, _rle(mask_hw), sessions)


def _fitted(mask_hw: NDArray[np.bool_], image: StoredImage) -> NDArray[np.bool_]:
    if mask_hw.shape != (image.full_height, image.full_width):
        raise BadMaskError(
            f"a mask of {mask_hw.shape[1]} x {mask_hw.shape[0]} px lies on an image of "
            f"{image.full_width} x {image.full_height} px",
            hint="was the image replaced? Draw the region again",
        )
    return fitted_mask(mask_hw, image.height, image.width)


def _rle(mask_hw: NDArray[np.bool_]) -> CocoRle:
    encoded = coco_mask.encode(np.asfortranarray(mask_hw.astype(np.uint8)))
    return {"size": [int(length) for length in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def _raise_if_away(error: RefCutError) -> None:
    """A Label Studio that cannot be asked would make every image look damaged."""
    if isinstance(error, SourceError) or error.code in LABEL_STUDIO_IS_AWAY:
        raise error


def images_of(scenes: Sequence[SnapshotScene] | Sequence[SnapshotReference]) -> set[str]:
    """File names."""
    return {scene.file_name for scene in scenes}
