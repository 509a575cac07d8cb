"""What a reference was worth: the first click with it and without it on the same annotated tasks, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

MIN_TASKS = 5
"""With fewer tasks the figures are shown, and called too few."""
SHOWN_DIFFERENCE = 0.01
"""A task counts as better or worse from this difference of the IoU on."""


@dataclass(frozen=True)
class TaskFigures:
    """IoU of the first click on one annotated task, 0..1.

    Attributes:
        task_id: The task.
        alone: With this reference and no other.
        without: Without any reference.
        others: With the other references of the label that are in use; None if there are none.
        trained: Whether the model that computed was trained on the photograph.
    """

    task_id: int
    alone: float
    without: float
    others: float | None = None
    trained: bool = False


@dataclass(frozen=True)
class ReferenceFigures:
    """What a reference was worth to a version of the model.

    Attributes:
        label: The reference's label.
        version: The reference's version.
        model_version: Weights that computed the masks.
        measured_at: Seconds since 1970.
        tasks: The tasks that it was measured on, never its own.
        problems: Why tasks are missing: one sentence each.
    """

    label: str
    version: str
    model_version: str
    measured_at: float
    tasks: tuple[TaskFigures, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_enough(self) -> bool:
        """Whether there are enough tasks to judge by."""
        return len(self.tasks) >= MIN_TASKS

    @property
    def change(self) -> float | None:
        """Mean change of the IoU by the reference; None without a task."""
        return fmean(task.alone - task.without for task in self.tasks) if self.tasks else None

    def __str__(self) -> str:
        """What the page and the command show."""
        if not self.tasks:
            why = (
                self.problems[0]
                if self.problems
                else "no annotated task with another photograph shows the label"
            )
            return f"Not measured: {why}."
        changes = [task.alone - task.without for task in self.tasks]
        better = sum(change >= SHOWN_DIFFERENCE for change in changes)
        worse = sum(change <= -SHOWN_DIFFERENCE for change in changes)
        sentences = [
            f"First click with it {iou(fmean(task.alone for task in self.tasks))}, "
            f"without {iou(fmean(task.without for task in self.tasks))}, on {_tasks(len(self.tasks))}: "
            f"better on {better}, worse on {worse}.",
            *self._about_others(),
        ]
        if not self.is_enough:
            sentences.append(
                f"{_tasks(len(self.tasks))} {'is' if len(self.tasks) == 1 else 'are'} too few to judge by."
            )
        trained = sum(task.trained for task in self.tasks)
        if trained:
            sentences.append(f"The model was trained on {trained} of them, so all of these figures are high.")
        return " ".join(sentences)

    def _about_others(self) -> list[str]:
        found = [task.others for task in self.tasks if task.others is not None]
        if not found:
            return []
        where = "" if len(found) == len(self.tasks) else f" (on {len(found)})"
        return [f"With the other references in use {iou(fmean(found))}{where}."]


def iou(value: float) -> str:
    """An IoU with two decimals and without the leading zero.

    Example:
        >>> iou(0.714), iou(1.0)
        ('.71', '1.00')
    """
    return f"{value:.2f}".removeprefix("0")


def _tasks(number: int) -> str:
    return f"{number} task" if number == 1 else f"{number} tasks"


def best_to_show(found: Sequence[ReferenceFigures], serving: str) -> ReferenceFigures | None:
    """Choose the figures to show: those of the version that serves, else the newest; None if there are none."""
    return max(
        found, key=lambda one: (one.model_version == serving, bool(one.tasks), one.measured_at), default=None
    )
