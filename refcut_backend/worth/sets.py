"""Which sets of references are tried on an annotated mask, and what became of each reference.

Three sets concern a reference: itself alone, none at all, and the others of its label that are in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from refcut_backend.queue.measure_queue import MeasuredSet
from refcut_backend.references.registry import ListedReference
from refcut_backend.references.selection import IN_USE
from refcut_backend.worth.figures import TaskFigures

Set = tuple[int, ...]
"""Rows of references that a click uses together."""


def usable_on(task_id: int, of_label: Sequence[ListedReference]) -> list[ListedReference]:
    """Returns the references of a label that did not come from a task."""
    return [one for one in of_label if one.candidate.task_id != task_id]


def others_of(one: ListedReference, of_label: Sequence[ListedReference]) -> Set:
    """Returns the other references of the label that clicks use together."""
    return tuple(
        other.candidate.id
        for other in of_label
        if other.state in IN_USE and other.candidate.problem is None and other is not one
    )


def sets_of(of_label: Sequence[ListedReference]) -> list[Set]:
    """Returns the sets to click with: no reference, each alone, and the others of each; each set once."""
    alone: list[Set] = [(one.candidate.id,) for one in of_label]
    others = [found for one in of_label if (found := others_of(one, of_label))]
    return list(dict.fromkeys([(), *alone, *others]))


@dataclass
class Measured:
    """What a run has so far.

    Attributes:
        model_version: Weights that computed all of it; "" before the first figure.
        masks: Number of annotated masks that gave a figure.
        tasks: Row of a reference to its figures.
        problems: Row of a reference to why figures are missing.
        failed: What could not be measured at all, one sentence each.
    """

    model_version: str = ""
    masks: int = 0
    tasks: dict[int, list[TaskFigures]] = field(default_factory=dict)
    problems: dict[int, list[str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def add(
        self,
        task_id: int,
        of_label: Sequence[ListedReference],
        found: dict[Set, MeasuredSet],
        trained: bool,
    ) -> None:
        """Add the figures of one task to those of its label's references.

        Args:
            task_id: The task.
            of_label: The references that were tried on it.
            found: What each of their sets gave.
            trained: Whether the model was trained on the photograph.
        """
        before = sum(map(len, self.tasks.values()))
        without = found[()].iou
        for one in of_label:
            alone, others = found[one.candidate.id,], others_of(one, of_label)
            if alone.problem:
                self.add_problem(one, alone.problem)
            if alone.iou is not None and without is not None:
                with_others = found[others].iou if others else None
                figures = TaskFigures(task_id, alone.iou, without, with_others, trained)
                self.tasks.setdefault(one.candidate.id, []).append(figures)
        self.masks += sum(map(len, self.tasks.values())) > before

    def add_problem(self, one: ListedReference, problem: str) -> None:
        """Note why a figure of a reference is missing."""
        self.problems.setdefault(one.candidate.id, []).append(problem)
