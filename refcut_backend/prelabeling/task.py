"""From a task that nobody has clicked on to a prediction for Label Studio: what its labels' references find there."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol

from refcut_backend.clicks.options import AnswerRules
from refcut_backend.errors import ImageError, NoReferenceError, QueueUnavailableError, RefCutError
from refcut_backend.images.address import image_of_task
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio.label_config import ProjectControls, read_label_config
from refcut_backend.label_studio.regions import GivenMask, mask_regions, prediction
from refcut_backend.queue.messages import FoundLabel, LabelToFind, PrelabelAnswer, PrelabelJob
from refcut_backend.references.registry import References


def task_score(mask_scores: Collection[Sequence[float]]) -> float:
    """The mean over labels of each label's least sure mask, 0..1; a label that was found nowhere counts as 0.

    mask_scores: for each label that has references, the scores of its masks. Without any label: 0.
    """
    if not mask_scores:
        return 0.0
    return sum(min(scores, default=0.0) for scores in mask_scores) / len(mask_scores)


@dataclass(frozen=True)
class TaskToPrelabel:
    """labels: only these; None for all that have references."""

    project_id: int
    task_id: int
    task_data: dict[str, Any]
    label_config: str
    labels: frozenset[str] | None = None


@dataclass(frozen=True)
class Prelabelled:
    """A prediction as Label Studio takes it, and how many masks are in it."""

    prediction: dict[str, Any]
    masks: int

    @property
    def model_version(self) -> str:
        return str(self.prediction["model_version"])


class PrelabelSender(Protocol):
    """Whatever carries a task to a worker and back."""

    def workers(self) -> Sized: ...

    def ask(
        self, job: PrelabelJob, deadline: float, is_cancelled: Callable[[], bool], *, is_continuation: bool
    ) -> PrelabelAnswer: ...


class TaskPrelabeller:
    """May be used from several threads."""

    def __init__(
        self, queue: PrelabelSender, references: References, addresses: Addresses, rules: AnswerRules
    ) -> None:
        self._queue = queue
        self._references = references
        self._addresses = addresses
        self._rules = rules

    def at_once(self) -> int:
        """How many tasks to begin together, at least 1: on fewer workers they would only take turns, and end late."""
        try:
            return max(len(self._queue.workers()), 1)
        except QueueUnavailableError:
            return 1

    def prelabel(
        self, task: TaskToPrelabel, limit_s: float, is_cancelled: Callable[[], bool] = lambda: False
    ) -> Prelabelled:
        """What is found on a task.

        limit_s: longest time, waiting for one's turn included. is_unwanted: asked meanwhile; true ends it as the limit
        does. Raises NoReferenceError when no label has references, and RefCutError when there can be no answer.
        """
        controls = read_label_config(task.label_config)
        wanted = self._labels(task, controls)
        deadline = time.monotonic() + limit_s
        found: dict[LabelToFind, FoundLabel] = {}
        version = ""
        while len(found) < len(wanted):
            left = tuple(label for label in wanted if label not in found)
            job = PrelabelJob(task.project_id, task.task_id, left)
            answer = self._queue.ask(job, deadline, is_cancelled, is_continuation=bool(found))
            if answer.error_code is not None:
                raise TaskRefusalError(answer.error_code, answer.error_message)
            if answer.found and answer.model_version != version:
                # Another version of the model has begun to serve: its masks are not mixed with the older one's.
                found, version = {}, answer.model_version
            by_place = {(one.label, one.to_name): one for one in answer.found}
            found |= {one: by_place[place] for one in left if (place := (one.label, one.to_name)) in by_place}
        return self._prelabelled(version, controls, list(found.values()))

    def labels_with_references(self, project_id: int, label_config: str) -> list[str]:
        """Labels that can be looked for, by name. Raises LabelConfigError."""
        return sorted(
            {label for label, _, _, _ in self._with_references(project_id, read_label_config(label_config))}
        )

    def _labels(self, task: TaskToPrelabel, controls: ProjectControls) -> list[LabelToFind]:
        labels, problem = [], None
        for label, to_name, field, ids in self._with_references(task.project_id, controls):
            if task.labels is not None and label not in task.labels:
                continue
            try:
                address = self._addresses.hide(image_of_task(task.task_data, field))
                labels.append(LabelToFind(label, to_name, address, ids))
            except ImageError as error:
                problem = error
        if labels:
            return labels
        if problem is not None:
            raise problem
        raise NoReferenceError(
            "no label has a reference that is in use",
            hint='mark a region "Reference" and submit; `refcut references list` shows what there is',
        )

    def _with_references(
        self, project_id: int, controls: ProjectControls
    ) -> Iterator[tuple[str, str, str, tuple[int, ...]]]:
        """Label, image tag, field of the task's data, and rows of references."""
        places = {
            (label, control.to_name): control.image_field
            for control in controls.masks
            for label in control.labels
        }
        for (label, to_name), field in sorted(places.items()):
            newest = self._references.newest(project_id, label, self._rules.max_references)
            if newest:
                yield label, to_name, field, tuple(reference.id for reference in newest)

    def _prelabelled(
        self, version: str, controls: ProjectControls, found: Collection[FoundLabel]
    ) -> Prelabelled:
        regions: list[dict[str, Any]] = []
        number = 0
        for label in found:
            control = controls.mask_control(label.label, label.to_name, self._rules.mask_output)
            for mask in label.masks:
                number += 1
                given = GivenMask(label.width, label.height, mask.rle, mask.score, label.reference_versions)
                regions += mask_regions(
                    f"rc-found-{number}", label.label, control, given, self._rules.outlines
                )
        score = task_score([[mask.score for mask in label.masks] for label in found])
        return Prelabelled(prediction(version, regions, score), number)


class TaskRefusalError(RefCutError):
    """The worker could not look at the task, and said why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
