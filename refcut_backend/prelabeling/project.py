"""Prelabels a project: its open tasks one after another, each result stored in Label Studio at once.

What is done stands in Label Studio alone, so a run that was cut off goes on where it was.
"""

from __future__ import annotations

import threading
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
"""A task that has not had its turn by then has failed: nobody else would say that the workers are gone."""


class Outcome(StrEnum):
    """What became of a task."""

    DONE = "prelabelled"
    ANNOTATED = "annotated already"
    PREDICTED = "prelabelled already"
    GONE = "deleted meanwhile"
    FAILED = "failed"
    LEFT = "left for next time"


@dataclass(frozen=True)
class TaskOutcome:
    """masks: how many were found. problem: why it failed."""

    task_id: int
    outcome: Outcome
    masks: int = 0
    problem: str = ""


@dataclass
class Summary:
    """What a run did."""

    counts: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    masks: int = 0
    without_masks: int = 0
    problems: dict[str, list[int]] = field(default_factory=dict)

    def add(self, said: TaskOutcome) -> None:
        """One more task."""
        self.counts[said.outcome] += 1
        self.masks += said.masks
        self.without_masks += said.outcome is Outcome.DONE and said.masks == 0
        if said.outcome is Outcome.FAILED:
            self.problems.setdefault(said.problem, []).append(said.task_id)


class StoresPredictions(Protocol):
    """`label_studio.predictions.ProjectPredictions`."""

    def tasks(self, model_version: str) -> Iterator[ProjectTask]: ...

    def task(self, task_id: int, model_version: str) -> ProjectTask | None: ...

    def post(self, task_id: int, prediction: dict[str, object]) -> None: ...


class PrelabelsTasks(Protocol):
    """`prelabel_task.TaskPrelabeller`."""

    def prelabel(
        self, task: TaskToPrelabel, limit_s: float, is_cancelled: Callable[[], bool]
    ) -> Prelabelled: ...


@dataclass(frozen=True)
class ProjectToPrelabel:
    """labels: only these; None for all that have references. model_version: what serves the project."""

    project_id: int
    label_config: str
    model_version: str
    labels: frozenset[str] | None = None


class ProjectPrelabeller:
    """One run over one project. is_lost: whether another run may have begun on the project meanwhile."""

    def __init__(
        self,
        project: ProjectToPrelabel,
        predictions: StoresPredictions,
        prelabeller: PrelabelsTasks,
        is_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        self._project = project
        self._predictions = predictions
        self._prelabeller = prelabeller
        self._is_lost = is_lost
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Leaves what has not been stored for next time."""
        self._stopped.set()

    def skipped_and_open(self) -> tuple[list[TaskOutcome], list[ListedTask]]:
        """The project's tasks: those that need nothing, and the others. Raises SourceError."""
        skipped, wanted = [], []
        for listed in self._predictions.tasks(self._project.model_version):
            if listed.is_open:
                wanted.append(listed.task)
            else:
                skipped.append(TaskOutcome(listed.task.id, _why_not(listed)))
        return skipped, wanted

    def work_on(self, tasks: Sequence[ListedTask], at_once: int) -> Generator[TaskOutcome, None, None]:
        """What becomes of each task, as it is known. at_once: tasks that are on their way together.

        Closing it stops what is on its way.
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
        """Unless somebody was faster. A post whose answer was lost may have arrived, so what is there is looked up."""
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
        return TaskOutcome(task_id, Outcome.DONE, found.masks)

    def _to_prelabel(self, task: ListedTask) -> TaskToPrelabel:
        project = self._project
        return TaskToPrelabel(project.project_id, task.id, task.data, project.label_config, project.labels)

    def _is_cancelled(self) -> bool:
        return self._stopped.is_set() or self._is_lost()


def _why_not(listed: ProjectTask) -> Outcome:
    return Outcome.ANNOTATED if listed.is_annotated else Outcome.PREDICTED
