"""Chooses annotated tasks to measure references on, and reads their masks from Label Studio, within limits.

The order decides which tasks are taken if there are more than enough. It is the same in every run, so that figures of two
versions of the model are about the same tasks:

1. Tasks that give no reference of the labels come first: every reference can be measured on them.
2. Then photographs that the model was not trained on come before others, as far as this machine knows.
3. Then a hash of the task's number decides, which spreads the choice over the project.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine, or_, select

from refcut_backend.database.tables import AnnotationState
from refcut_backend.errors import RefCutError
from refcut_backend.images.address import TaskImage, image_of_task
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.label_config import ProjectControls, read_label_config
from refcut_backend.label_studio.payloads import AnnotationPayload, ListedTask
from refcut_backend.label_studio.regions import UNFORESEEN
from refcut_backend.label_studio.tasks import AnnotationSource, GoneError, UnreadableError
from refcut_backend.training.masks import LabelMask, read_training_masks

log = logging.getLogger("refcut.references")

TASKS_PER_LABEL = 20
TASKS_READ = 200
"""Most tasks whose annotations one run reads."""
MIN_TARGET_PX = 4

IsTrained = Callable[[TaskImage], bool]
"""Whether the model that serves is known to have been trained on an image."""


@dataclass(frozen=True)
class Target:
    """A mask that somebody has annotated: all regions of a label in the newest annotation of a task that has the label.

    Attributes:
        label: The label.
        where: The image.
        rle: The mask as Label Studio's brush RLE.
        width: Of the mask in pixels.
        height: Of the mask in pixels.
    """

    label: str
    where: TaskImage
    rle: bytes
    width: int
    height: int


@dataclass
class Targets:
    """What references are measured on.

    Attributes:
        found: The masks, those of a task one after another.
        problems: What was skipped, one sentence each.
    """

    found: list[Target] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def annotated_tasks(engine: Engine, project_id: int) -> list[int]:
    """Ids of a project's tasks that have masks, as far as the backend knows, in the order of their hashes."""
    query = (
        select(AnnotationState.task_id)
        .where(AnnotationState.project_id == project_id, AnnotationState.task_id.is_not(None))
        .where(AnnotationState.deleted_at.is_(None))
        .where(or_(AnnotationState.mask_regions.is_(None), AnnotationState.mask_regions > 0))
        .distinct()
    )
    with engine.connect() as connection:
        return sorted((task_id for task_id in connection.scalars(query) if task_id), key=_position)


class TargetReader:
    """Reads the masks of one project from Label Studio."""

    def __init__(
        self, project_id: int, label_config: str, source: AnnotationSource, is_trained: IsTrained
    ) -> None:
        """Prepare.

        Args:
            project_id: The project.
            label_config: Its label config (XML).
            source: Lists tasks and annotations of the project.
            is_trained: Whether the model was trained on an image.
        """
        self._project_id = project_id
        self._label_config = label_config
        self._source = source
        self._is_trained = is_trained

    def read(
        self, task_ids: Sequence[int], tasks_of: Mapping[str, Collection[int]], on_task: Callable[[], None]
    ) -> Targets:
        """Read up to `TASKS_PER_LABEL` masks of each label.

        Args:
            task_ids: Annotated tasks in the order of their hashes; the first `TASKS_READ` are looked at.
            tasks_of: Label to the tasks that its references came from.
            on_task: Called before each task is read; what it raises is passed on.

        Raises:
            RefCutError: If Label Studio cannot be read.
        """
        listed = self._source.tasks(task_ids[:TASKS_READ])
        give_references = set().union(*tasks_of.values())
        ordered = sorted(listed, key=lambda task: self._rank(task, give_references))
        targets, left = Targets(), dict.fromkeys(tasks_of, TASKS_PER_LABEL)
        for task in ordered:
            wanted = {label for label, number in left.items() if number > 0}
            if not wanted:
                break
            on_task()
            for target in self._of_task(task, wanted, targets.problems):
                targets.found.append(target)
                left[target.label] -= 1
        return targets

    def _rank(self, task: ListedTask, give_references: Collection[int]) -> tuple[bool, bool, int]:
        return task.id in give_references, self._was_trained_on(task), _position(task.id)

    def _was_trained_on(self, task: ListedTask) -> bool:
        try:
            controls = read_label_config(self._label_config, task.data)
            images = {image_of_task(task.data, control) for control in controls.regions}
        except RefCutError:
            return False
        return any(self._is_trained(TaskImage(self._project_id, task.id, image)) for image in images)

    def _of_task(self, task: ListedTask, wanted: Collection[str], problems: list[str]) -> list[Target]:
        try:
            annotations = self._source.annotations(task.id)
        except GoneError:
            return []
        except UnreadableError as error:
            problems.append(f"task {task.id}: {error}")
            return []
        found: dict[str, Target] = {}
        for annotation in sorted(annotations, key=lambda one: (one.updated_at, one.id), reverse=True):
            try:
                for target in self._of_annotation(task, annotation):
                    if target.label in wanted:
                        found.setdefault(target.label, target)
            except RefCutError as error:
                problems.append(f"task {task.id}, annotation {annotation.id}: {error}")
            except UNFORESEEN as error:
                log.exception("an annotation is left out", extra={"annotation": annotation.id})
                problems.append(
                    f"task {task.id}, annotation {annotation.id}: cannot be read ({type(error).__name__})"
                )
        return [found[label] for label in sorted(found)]

    def _of_annotation(self, task: ListedTask, annotation: AnnotationPayload) -> list[Target]:
        controls = read_label_config(self._label_config, task.data)
        return [
            self._target(task, controls, to_name, mask)
            for to_name, masks in read_training_masks(annotation.result, controls).items()
            for mask in masks
            if mask.mask_hw.sum() >= MIN_TARGET_PX
        ]

    def _target(self, task: ListedTask, controls: ProjectControls, to_name: str, mask: LabelMask) -> Target:
        control = next(control for control in controls.regions if control.to_name == to_name)
        where = TaskImage(self._project_id, task.id, image_of_task(task.data, control))
        height, width = mask.mask_hw.shape
        return Target(mask.label, where, bytes(brush_rle.encode(mask.mask_hw)), width, height)


def _position(task_id: int) -> int:
    """A number that depends only on the task, uniformly distributed over tasks."""
    return int.from_bytes(hashlib.sha256(f"worth {task_id}".encode()).digest()[:8])
