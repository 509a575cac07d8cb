"""Which sets of references are tried on a mask."""

from __future__ import annotations

from datetime import UTC, datetime

from refcut_backend.queue.measure_queue import MeasuredSet
from refcut_backend.references.registry import ListedReference
from refcut_backend.references.selection import Candidate, State
from refcut_backend.worth.figures import TaskFigures
from refcut_backend.worth.sets import Measured, sets_of, usable_on


def reference(
    number: int, task: int = 0, state: State = State.USED, problem: str | None = None
) -> ListedReference:
    candidate = Candidate(number, f"v{number}", "Wheel", task or number, number, "", problem=problem)
    return ListedReference(candidate, state, datetime.now(UTC))


def test_a_reference_is_not_tried_on_its_own_task():
    of_label = [reference(1, task=5), reference(2, task=6)]
    assert [one.candidate.id for one in usable_on(5, of_label)] == [2]


def test_each_set_is_tried_once_none_each_alone_and_the_others_of_each():
    of_label = [reference(1), reference(2), reference(3), reference(4, state=State.OVER_LIMIT)]
    assert sets_of(of_label) == [(), (1,), (2,), (3,), (4,), (2, 3), (1, 3), (1, 2), (1, 2, 3)]
    assert sets_of([reference(1), reference(2)]) == [(), (1,), (2,)]
    assert sets_of([reference(1)]) == [(), (1,)]


def test_a_reference_that_clicks_do_not_use_is_none_of_the_others():
    of_label = [reference(1), reference(2, state=State.DISABLED), reference(3, problem="lost")]
    assert sets_of(of_label) == [(), (1,), (2,), (3,)]


def test_the_figures_of_a_task_go_to_each_reference_and_problems_to_their_own():
    of_label = [reference(1), reference(2), reference(3)]
    gave = {
        (): MeasuredSet(0.5),
        (1,): MeasuredSet(0.75),
        (2,): MeasuredSet(None, "lost"),
        (3,): MeasuredSet(None),
        (2, 3): MeasuredSet(None, "lost"),
        (1, 3): MeasuredSet(0.25),
        (1, 2): MeasuredSet(None, "lost"),
    }
    measured = Measured()
    measured.add(9, of_label, gave, trained=True)
    assert measured.tasks == {1: [TaskFigures(9, 0.75, 0.5, None, True)]}
    assert measured.problems == {2: ["lost"]}
