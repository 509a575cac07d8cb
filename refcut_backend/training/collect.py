"""Collects the training data of a project from Label Studio: masks by label, logged clicks, images, references.

A damaged annotation or image is skipped and named. If Label Studio itself is away, the collection ends, because every
image would look damaged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.data.snapshot import SnapshotMask, SnapshotObject, SnapshotReference
from model.masks import encode
from refcut_backend.clicks.log import ClickLog
from refcut_backend.errors import BadMaskError, LabelStudioError, RefCutError
from refcut_backend.images.address import TaskImage, image_of_task
from refcut_backend.images.decode import fitted_mask
from refcut_backend.label_studio.label_config import read_label_config
from refcut_backend.label_studio.payloads import AnnotationPayload, ListedTask
from refcut_backend.label_studio.regions import UNFORESEEN
from refcut_backend.label_studio.tasks import AnnotatedTask, AnnotationSource, SourceError, UnreadableError
from refcut_backend.references.registry import References, StoredReference
from refcut_backend.training.masks import LabelMask, click_sessions, read_training_masks
from refcut_backend.training.stored_images import FetchImage, ProjectImages, StoredImage

log = logging.getLogger("refcut.training")

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
        fetch_image: FetchImage,
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
            fetch_image: Fetches an image, or reports that it has not changed.
            images: Stores the images.
            clicks: The log of answered clicks, for the sessions that masks came from.
            references: The references of all projects.
            max_references: Number of references per label.
        """
        self._project_id = project_id
        self._label_config = label_config
        self._source = source
        self._fetch_image = fetch_image
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
        done = 0
        for part in self._source.annotated_in_full():
            total = done + part.remaining
            clicks_of = self._clicks.last_clicks(self._project_id, [one.task.id for one in part.tasks])
            for one in part.tasks:
                on_task(done, total)
                self._task(one, clicks_of.get(one.task.id, {}), data)
                done += 1
        labels = controls.region_labels
        if controls.labels_from_task:
            labels |= self._references.labels(self._project_id)
        for label in sorted(labels):
            self._label_references(label, data)
        return data

    def _task(self, one: AnnotatedTask, clicks_of: dict[str, list[list[Any]]], data: TrainingData) -> None:
        task, annotations = one.task, one.annotations
        if isinstance(annotations, UnreadableError):
            data.problems.append(f"task {task.id}: {annotations}")
            return
        for annotation in sorted(annotations, key=lambda annotation: annotation.id):
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
                self._seen[where] = self._images.read(where, self._fetch_image)
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
