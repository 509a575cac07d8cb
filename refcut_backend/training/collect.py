"""Collects the training data of a project from Label Studio: masks by label, logged clicks, images, references.

A damaged annotation or image is skipped and named. If Label Studio itself is away, the collection ends, because every
image would look damaged.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.data.snapshot import SnapshotMask, SnapshotObject, SnapshotReference
from model.files import atomic_write
from model.masks import encode
from refcut_backend.clicks.log import ClickLog
from refcut_backend.errors import BadMaskError, ImageError, LabelStudioError, RefCutError
from refcut_backend.images.address import TaskImage, image_of_task
from refcut_backend.images.cache import working_copy
from refcut_backend.images.decode import fitted_mask
from refcut_backend.label_studio.label_config import read_label_config
from refcut_backend.label_studio.payloads import AnnotationPayload, ListedTask, Timestamp
from refcut_backend.label_studio.regions import UNFORESEEN
from refcut_backend.label_studio.tasks import AnnotationSource, GoneError, SourceError, UnreadableError
from refcut_backend.references.registry import References, StoredReference
from refcut_backend.training.masks import LabelMask, click_sessions, read_training_masks

log = logging.getLogger("refcut.training")

SUFFIX = ".png"
QUICK_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)


@dataclass(frozen=True)
class StoredImage:
    """An image of a project in its training folder.

    Attributes:
        content: SHA-256 of the stored pixels, which is also the file's name.
        height: Height of the stored image in pixels.
        width: Width of the stored image in pixels.
        full_height: Height of the image in the browser, in pixels.
        full_width: Width of the image in the browser, in pixels.
    """

    content: str
    height: int
    width: int
    full_height: int
    full_width: int

    @property
    def file_name(self) -> str:
        """Name of the file in the folder of images."""
        return f"{self.content}{SUFFIX}"


def content_of(file_name: str) -> str:
    """SHA-256 of the pixels of a stored image, from its file name."""
    return file_name.removesuffix(SUFFIX)


class ProjectImages:
    """The PNG files of a project's images. Large images are stored at the size at which clicks are computed on them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, image: NDArray[np.uint8]) -> StoredImage:
        """Store an image unless an image with the same pixels is there.

        Args:
            image: RGB (H, W, 3) uint8, at full size.

        Raises:
            OSError: If the disk is full.
        """
        working = working_copy("", image)
        pixels = np.ascontiguousarray(working.pixels)
        height, width = pixels.shape[:2]
        content = hashlib.sha256(f"{height}x{width} ".encode() + pixels.tobytes()).hexdigest()
        stored = StoredImage(content, height, width, working.height, working.width)
        path = self._folder / stored.file_name
        if not path.exists():
            ok, png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), QUICK_PNG)
            if not ok:
                raise ImageError("the image cannot be written as PNG")
            # A run may be killed at any time, and two runs of one project may share the folder.
            with atomic_write(path, shared=True) as temporary:
                temporary.write_bytes(png.tobytes())
        return stored

    def put_into(self, folder: Path, file_name: str) -> None:
        """Put a stored file into another folder too: as a hard link if the file system allows it, else as a copy."""
        target = folder / file_name
        try:
            os.link(self._folder / file_name, target)
        except OSError:
            shutil.copyfile(self._folder / file_name, target)


ReadImage = Callable[[TaskImage], NDArray[np.uint8]]
"""Returns an image at full size, RGB (H, W, 3) uint8. Raises RefCutError."""
OnTask = Callable[[int, int], None]
"""Called with (number of tasks read, number of all tasks). May raise to end the collection."""
LABEL_STUDIO_IS_AWAY = frozenset({LabelStudioError.code, "token"})


@dataclass
class TrainingData:
    """The training data of a project.

    Attributes:
        annotations: (annotation id, task id, sortable `updated_at`) of all annotations that were read, also of those
            without a usable mask.
        annotated_objects: Images with masks; their files are in the project's `ProjectImages`.
        references: References with masks; likewise.
        problems: What was skipped, one sentence each.
    """

    annotations: list[tuple[int, int, str]] = field(default_factory=list)
    annotated_objects: list[SnapshotObject] = field(default_factory=list)
    references: list[SnapshotReference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Collector:
    """Collects one project once."""

    def __init__(
        self,
        project_id: int,
        label_config: str,
        source: AnnotationSource,
        read_image: ReadImage,
        images: ProjectImages,
        clicks: ClickLog,
        references: References,
        max_references: int,
    ) -> None:
        """Prepare the collection.

        Args:
            project_id: The project in Label Studio.
            label_config: Its label config (XML).
            source: Lists tasks and annotations of the project.
            read_image: Returns an image at full size.
            images: Stores the images.
            clicks: The log of answered clicks, for the sessions that masks came from.
            references: The references of all projects.
            max_references: Number of references per label.
        """
        self._project_id = project_id
        self._label_config = label_config
        self._source = source
        self._read_image = read_image
        self._images = images
        self._clicks = clicks
        self._references = references
        self._max_references = max_references
        self._seen: dict[TaskImage, StoredImage | RefCutError] = {}

    def collect(self, on_task: OnTask) -> TrainingData:
        """Collect everything.

        Args:
            on_task: Called before each task.

        Raises:
            RefCutError: If Label Studio cannot be read, or the label config cannot be parsed.
            OSError: If the disk is full.
        """
        controls = read_label_config(self._label_config)
        data = TrainingData()
        tasks = [task for part in self._source.annotated_since(Timestamp()) for task in part]
        for number, task in enumerate(tasks):
            on_task(number, len(tasks))
            self._task(task, data)
        labels = controls.region_labels
        if controls.labels_from_task:
            labels |= self._references.labels(self._project_id)
        for label in sorted(labels):
            self._label_references(label, data)
        return data

    def _task(self, task: ListedTask, data: TrainingData) -> None:
        try:
            annotations = self._source.annotations(task.id)
        except GoneError:
            return
        except UnreadableError as error:
            data.problems.append(f"task {task.id}: {error}")
            return
        clicks_of = self._clicks.last_clicks(self._project_id, task.id)
        for annotation in sorted(annotations, key=lambda annotation: annotation.id):
            if annotation.was_cancelled:
                continue
            data.annotations.append((annotation.id, task.id, annotation.updated_at))
            try:
                data.annotated_objects += self._annotated_objects(task, annotation, clicks_of)
            except RefCutError as error:
                _raise_if_away(error)
                data.problems.append(f"task {task.id}, annotation {annotation.id}: {error}")
            except UNFORESEEN as error:
                log.exception("an annotation is left out", extra={"annotation": annotation.id})
                data.problems.append(
                    f"task {task.id}, annotation {annotation.id}: cannot be read ({type(error).__name__})"
                )

    def _annotated_objects(
        self, task: ListedTask, annotation: AnnotationPayload, clicks_of: dict[str, list[list[Any]]]
    ) -> list[SnapshotObject]:
        """One annotated object per image that the annotation has masks on."""
        annotated_objects = []
        controls = read_label_config(self._label_config, task.data)
        for to_name, masks in read_training_masks(annotation.result, controls).items():
            control = next(control for control in controls.masks if control.to_name == to_name)
            address = image_of_task(task.data, control)
            image = self._image(TaskImage(self._project_id, task.id, address))
            annotated_objects.append(
                SnapshotObject(
                    file_name=image.file_name,
                    width=image.width,
                    height=image.height,
                    annotation=f"{annotation.id}-{to_name}",
                    masks=[found for mask in masks if (found := _snapshot_mask(mask, image, clicks_of))],
                )
            )
        return [annotated_object for annotated_object in annotated_objects if annotated_object.masks]

    def _image(self, where: TaskImage) -> StoredImage:
        """Reads each image once; a failure is remembered too."""
        if where not in self._seen:
            try:
                self._seen[where] = self._images.add(self._read_image(where))
            except RefCutError as error:
                _raise_if_away(error)
                self._seen[where] = error
        found = self._seen[where]
        if isinstance(found, RefCutError):
            raise found
        return found

    def _label_references(self, label: str, data: TrainingData) -> None:
        for chosen in self._references.newest(self._project_id, label, self._max_references):
            stored = self._references.load(chosen.id)
            if stored is None or stored.project_id != self._project_id:
                continue
            try:
                data.references.append(self._reference(label, stored))
            except RefCutError as error:
                _raise_if_away(error)
                data.problems.append(f"reference of '{label}' in task {stored.task_id}: {error}")

    def _reference(self, label: str, stored: StoredReference) -> SnapshotReference:
        image = self._image(TaskImage(stored.project_id, stored.task_id, stored.image_address))
        negative_hw = stored.negative_hw
        return SnapshotReference(
            label=label,
            file_name=image.file_name,
            positive=encode(_fitted(stored.positive_hw, image)),
            negative=None if negative_hw is None else encode(_fitted(negative_hw, image)),
            version=stored.version,
        )


def _snapshot_mask(
    mask: LabelMask, image: StoredImage, clicks_of: dict[str, list[list[Any]]]
) -> SnapshotMask | None:
    """None if no pixel of the mask is left at the size of the stored image."""
    mask_hw = _fitted(mask.mask_hw, image)
    if not mask_hw.any():
        return None
    sessions = click_sessions(mask.region_ids, clicks_of, image.height, image.width)
    return SnapshotMask(mask.label, encode(mask_hw), sessions)


def _fitted(mask_hw: NDArray[np.bool_], image: StoredImage) -> NDArray[np.bool_]:
    if mask_hw.shape != (image.full_height, image.full_width):
        raise BadMaskError(
            f"a mask of {mask_hw.shape[1]} x {mask_hw.shape[0]} px lies on an image of "
            f"{image.full_width} x {image.full_height} px",
            hint="was the image replaced? Draw the region again",
        )
    return fitted_mask(mask_hw, image.height, image.width)


def _raise_if_away(error: RefCutError) -> None:
    """Raises the error again if Label Studio is away: otherwise every image would look damaged."""
    if isinstance(error, SourceError) or error.code in LABEL_STUDIO_IS_AWAY:
        raise error


def images_of(annotated_objects: Sequence[SnapshotObject] | Sequence[SnapshotReference]) -> set[str]:
    """File names of the images of annotated objects or references."""
    return {annotated_object.file_name for annotated_object in annotated_objects}
