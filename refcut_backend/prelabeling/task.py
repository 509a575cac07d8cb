"""Pre-labels one task: sends its labels with their references to a worker and makes a prediction for Label Studio."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol

from refcut_backend.clicks.options import AnswerRules
from refcut_backend.errors import ImageError, NoReferenceError, QueueUnavailableError, RefCutError
from refcut_backend.images.address import image_of_task
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio.label_config import Control, ProjectControls, read_label_config
from refcut_backend.label_studio.regions import GivenMask, mask_regions, prediction
from refcut_backend.prelabeling.rivals import without_rivals
from refcut_backend.queue.messages import (
    FoundLabel,
    LabelToFind,
    PrelabelAnswer,
    PrelabelJob,
    known_code,
)
from refcut_backend.references.registry import References, ReferenceVersion


def task_score(mask_scores: Collection[Sequence[float]]) -> float:
    """Compute a task's score, by which Label Studio can sort tasks: the lower, the more doubtful.

    Args:
        mask_scores: For each label that has references, the scores of its masks, 0..1.

    Returns:
        The mean over labels of each label's lowest score. A label without masks counts as 0; without labels it is 0.
    """
    if not mask_scores:
        return 0.0
    return sum(min(scores, default=0.0) for scores in mask_scores) / len(mask_scores)


@dataclass(frozen=True)
class TaskToPrelabel:
    """A task to pre-label.

    Attributes:
        project_id: Label Studio's project.
        task_id: Label Studio's task.
        task_data: The task's data; it holds the images' URLs.
        label_config: The project's label config (XML).
        labels: Labels to look for; None for all that have references.
    """

    project_id: int
    task_id: int
    task_data: dict[str, Any]
    label_config: str
    labels: frozenset[str] | None = None


@dataclass(frozen=True)
class Prelabelled:
    """The result for a task.

    Attributes:
        prediction: As Label Studio takes it.
        masks: Number of masks in it.
        references_left_out: One sentence for each reference that could not be used.
    """

    prediction: dict[str, Any]
    masks: int
    references_left_out: tuple[str, ...] = ()

    @property
    def model_version(self) -> str:
        """Weights that computed the masks."""
        return str(self.prediction["model_version"])


class PrelabelSender(Protocol):
    """Sends a task to a worker and waits for the answer: `queue.prelabel_queue.PrelabelQueue`."""

    def workers(self) -> Sized:
        """List the workers that would take a task now."""

    def ask(
        self, job: PrelabelJob, deadline: float, is_cancelled: Callable[[], bool], *, is_continuation: bool
    ) -> PrelabelAnswer:
        """Return what a worker found. Raise RefCutError if no worker answers."""


class TaskPrelabeller:
    """Pre-labels tasks; may be used from several threads.

    Args:
        queue: Sends tasks to workers.
        references: Masks that say what a label means.
        addresses: Keeps signed URLs out of Redis.
        rules: How regions are built, and how many references are used.
    """

    def __init__(
        self, queue: PrelabelSender, references: References, addresses: Addresses, rules: AnswerRules
    ) -> None:
        self._queue = queue
        self._references = references
        self._addresses = addresses
        self._rules = rules

    def at_once(self) -> int:
        """Return how many tasks to begin together: as many as there are workers, at least 1."""
        try:
            return max(len(self._queue.workers()), 1)
        except QueueUnavailableError:
            return 1

    def prelabel(
        self, task: TaskToPrelabel, limit_s: float, is_cancelled: Callable[[], bool] = lambda: False
    ) -> Prelabelled:
        """Search a task for the objects of its labels.

        A worker stops for clicks and after some seconds. The labels that it left are then sent again.

        Args:
            task: The task.
            limit_s: Longest time in seconds, waiting for a worker included.
            is_cancelled: Checked while waiting; true ends the search like the limit.

        Raises:
            NoReferenceError: If no label has a reference.
            TaskRefusalError: If no reference of any label can be used.
            ImageError: If the task has no usable image.
            RefCutError: If there is no answer for another reason.
        """
        controls = read_label_config(task.label_config, task.task_data)
        chosen = self._labels(task, controls)
        wanted = list(chosen)
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
                # Another model version serves by now: masks of two versions are not mixed.
                found, version = {}, answer.model_version
            answers = {(one.label, one.to_name): one for one in answer.found}
            found |= {one: answers[key] for one in left if (key := (one.label, one.to_name)) in answers}
        for one, answer_of_label in found.items():
            self._references.note_use(
                chosen[one], answer_of_label.reference_versions, answer_of_label.references_left_out
            )
        return self._prelabelled(version, controls, list(found.values()))

    def labels_with_references(self, project_id: int, label_config: str) -> list[str]:
        """List the labels that can be looked for, by name. If tasks add labels, any of them may be.

        Raises:
            LabelConfigError: If the label config cannot be read.
        """
        controls = read_label_config(label_config)
        labels = {label for control in controls.masks for label in control.labels}
        if controls.labels_from_task:
            labels |= self._references.labels(project_id)
        return sorted(label for label in labels if self._newest(project_id, label))

    def _labels(
        self, task: TaskToPrelabel, controls: ProjectControls
    ) -> dict[LabelToFind, list[ReferenceVersion]]:
        """The labels to look for, each with its references."""
        labels: dict[LabelToFind, list[ReferenceVersion]] = {}
        problem = None
        for label, control, newest in self._with_references(task, controls):
            try:
                address = self._addresses.hide(image_of_task(task.task_data, control))
                ids = tuple(reference.id for reference in newest)
                labels[LabelToFind(label, control.to_name, address, ids)] = newest
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
        self, task: TaskToPrelabel, controls: ProjectControls
    ) -> Iterator[tuple[str, Control, list[ReferenceVersion]]]:
        """The labels to look for, by name and once per image, each with a control there and its references."""
        wanted = {
            (label, control.to_name): control
            for control in controls.masks
            for label in control.labels
            if task.labels is None or label in task.labels
        }
        newest = {label: self._newest(task.project_id, label) for label, _ in wanted}
        for label, to_name in sorted(wanted):
            if newest[label]:
                yield label, wanted[label, to_name], newest[label]

    def _newest(self, project_id: int, label: str) -> list[ReferenceVersion]:
        return self._references.newest(project_id, label, self._rules.max_references)

    def _prelabelled(
        self, version: str, controls: ProjectControls, found: Collection[FoundLabel]
    ) -> Prelabelled:
        left_out = [one for label in found for one in label.references_left_out]
        if left_out and not any(label.reference_versions for label in found):
            raise TaskRefusalError(
                known_code(left_out[0].reason) or RefCutError.code, f"no reference can be used: {left_out[0]}"
            )
        found = without_rivals(list(found))
        regions: list[dict[str, Any]] = []
        number = 0
        for label in found:
            control = controls.mask_control(label.label, label.to_name, self._rules.mask_output)
            for mask in label.masks:
                number += 1
                given = GivenMask(
                    label.width,
                    label.height,
                    mask.rle,
                    mask.score,
                    label.reference_versions,
                    tuple(map(str, label.references_left_out)),
                )
                regions += mask_regions(
                    f"rc-found-{number}", label.label, control, given, self._rules.outlines
                )
        score = task_score([[mask.score for mask in label.masks] for label in found])
        sentences = tuple(dict.fromkeys(map(str, left_out)))
        return Prelabelled(prediction(version, regions, score), number, sentences)


class TaskRefusalError(RefCutError):
    """The worker could not search the task; it sent the reason.

    Args:
        code: The worker's reason code.
        message: Its message, hint included.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
