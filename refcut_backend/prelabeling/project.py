"""Pre-labels a project for `refcut prelabel`: all of its open tasks, each result stored in Label Studio immediately.

Label Studio alone knows what is done, so an interrupted run resumes by itself when it is started again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.payloads import ListedTask
from refcut_backend.label_studio.predictions import ProjectTask
from refcut_backend.label_studio.tasks import GoneError, SourceError
from refcut_backend.prelabeling.task import Prelabelled, TaskToPrelabel

TASK_LIMIT_S = 600.0
"""A task fails if no worker was free for it within this time. Otherwise nobody would notice that all workers are gone."""


class Outcome(StrEnum):
    """Outcome of a task, as shown to the user."""

    DONE = "prelabelled"
    ANNOTATED = "annotated already"
    PREDICTED = "prelabelled already"
    GONE = "deleted meanwhile"
    FAILED = "failed"
    LEFT = "left for next time"


@dataclass(frozen=True)
class TaskOutcome:
    """Outcome of one task.

    Attributes:
        task_id: Label Studio's task.
        outcome: What became of it.
        masks: Number of masks that were found.
        problem: Why it failed; empty otherwise.
        references_left_out: One sentence for each reference that could not be used.
    """

    task_id: int
    outcome: Outcome
    masks: int = 0
    problem: str = ""
    references_left_out: tuple[str, ...] = ()


@dataclass
class Summary:
    """Totals of a run.

    Attributes:
        counts: Number of tasks by outcome.
        masks: Number of masks that were found.
        without_masks: Number of searched tasks without any mask.
        problems: Message to the tasks that failed with it.
        references_left_out: One sentence for each reference that could not be used, to the number of tasks.
    """

    counts: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    masks: int = 0
    without_masks: int = 0
    problems: dict[str, list[int]] = field(default_factory=dict)
    references_left_out: Counter[str] = field(default_factory=Counter)

    def add(self, task: TaskOutcome) -> None:
        """Count one more task."""
        self.counts[task.outcome] += 1
        self.masks += task.masks
        self.references_left_out.update(task.references_left_out)
        self.without_masks += task.outcome is Outcome.DONE and task.masks == 0
        if task.outcome is Outcome.FAILED:
            self.problems.setdefault(task.problem, []).append(task.task_id)


class PredictionStore(Protocol):
    """Tasks and predictions in Label Studio: `label_studio.predictions.ProjectPredictions`."""

    def tasks(self, model_version: str) -> Iterator[ProjectTask]:
        """List the project's tasks, with whether each has a prediction of that version."""

    def task(self, task_id: int, model_version: str) -> ProjectTask | None:
        """Look up one task; None if it was deleted."""

    def post(self, task_id: int, prediction: dict[str, object]) -> None:
        """Store a prediction. Raise GoneError if the task was deleted, SourceError for other problems."""


class Prelabeller(Protocol):
    """Pre-labels one task: `task.TaskPrelabeller`."""

    def prelabel(self, task: TaskToPrelabel, limit_s: float, is_cancelled: Callable[[], bool]) -> Prelabelled:
        """Return a task's prediction. Raise RefCutError if there is none within the limit."""


@dataclass(frozen=True)
class ProjectToPrelabel:
    """What a run works on.

    Attributes:
        project_id: Label Studio's project.
        label_config: Its label config (XML).
        model_version: The version that serves the project.
        labels: Labels to look for; None for all that have references.
    """

    project_id: int
    label_config: str
    model_version: str
    labels: frozenset[str] | None = None


class ProjectPrelabeller:
    """One run over one project.

    Args:
        project: What to work on.
        predictions: Tasks and predictions in Label Studio.
        prelabeller: Pre-labels one task.
        is_lost: Whether another run may have begun on the project meanwhile; this one then stores nothing more.
    """

    def __init__(
        self,
        project: ProjectToPrelabel,
        predictions: PredictionStore,
        prelabeller: Prelabeller,
        is_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        self._project = project
        self._predictions = predictions
        self._prelabeller = prelabeller
        self._is_lost = is_lost
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Stop the run. Tasks without a stored prediction are left for the next run."""
        self._stopped.set()

    def skipped_and_open(self) -> tuple[list[TaskOutcome], list[ListedTask]]:
        """List the project's tasks.

        Returns:
            The tasks that need nothing, with the reason; and the open tasks.

        Raises:
            SourceError: If Label Studio cannot be reached.
        """
        skipped, open_tasks = [], []
        for listed in self._predictions.tasks(self._project.model_version):
            if listed.is_open:
                open_tasks.append(listed.task)
            else:
                skipped.append(TaskOutcome(listed.task.id, _why_not(listed)))
        return skipped, open_tasks

    def work_on(self, tasks: Sequence[ListedTask], at_once: int) -> Generator[TaskOutcome, None, None]:
        """Pre-label tasks and store their predictions. Closing the generator stops the run.

        Args:
            tasks: Open tasks.
            at_once: How many tasks are sent to workers at the same time.

        Yields:
            The outcome of each task as soon as it is known.
        """
        with ThreadPoolExecutor(at_once, "prelabel") as threads:
            outcomes = [threads.submit(self._one, task) for task in tasks]
            try:
                for outcome in as_completed(outcomes):
                    yield outcome.result()
            finally:
                self.stop()

    def _one(self, task: ListedTask) -> TaskOutcome:
        if self._is_cancelled():
            return TaskOutcome(task.id, Outcome.LEFT)
        try:
            found = self._prelabeller.prelabel(self._to_prelabel(task), TASK_LIMIT_S, self._is_cancelled)
            return self._store(task.id, found)
        except GoneError:
            return TaskOutcome(task.id, Outcome.GONE)
        except RefCutError as error:
            if self._is_cancelled():
                return TaskOutcome(task.id, Outcome.LEFT)
            return TaskOutcome(task.id, Outcome.FAILED, problem=str(error))
        except SQLAlchemyError as error:
            return TaskOutcome(
                task.id, Outcome.FAILED, problem=f"the database fails ({type(error).__name__})"
            )

    def _store(self, task_id: int, found: Prelabelled) -> TaskOutcome:
        """Stores a prediction unless the task has one by now.

        A post whose answer was lost may have arrived, so the task is looked up again before the second try.
        """
        for is_last in (False, True):
            now = self._predictions.task(task_id, found.model_version)
            if now is None:
                return TaskOutcome(task_id, Outcome.GONE)
            if not now.is_open:
                return TaskOutcome(task_id, _why_not(now))
            if self._is_lost():
                return TaskOutcome(task_id, Outcome.LEFT)
            try:
                self._predictions.post(task_id, found.prediction)
                break
            except GoneError:
                raise
            except SourceError:
                if is_last:
                    raise
        return TaskOutcome(task_id, Outcome.DONE, found.masks, references_left_out=found.references_left_out)

    def _to_prelabel(self, task: ListedTask) -> TaskToPrelabel:
        project = self._project
        return TaskToPrelabel(project.project_id, task.id, task.data, project.label_config, project.labels)

    def _is_cancelled(self) -> bool:
        return self._stopped.is_set() or self._is_lost()


def _why_not(listed: ProjectTask) -> Outcome:
    return Outcome.ANNOTATED if listed.is_annotated else Outcome.PREDICTED
