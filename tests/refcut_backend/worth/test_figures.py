"""What a reference was worth, in plain words."""

from __future__ import annotations

from refcut_backend.worth.figures import ReferenceFigures, TaskFigures, best_to_show


def figures(*tasks: TaskFigures, model: str = "m", at: float = 1.0, problems=()) -> ReferenceFigures:
    return ReferenceFigures("Wheel", "0123456789ab", model, at, tasks, tuple(problems))


def task(number: int, alone: float, without: float, others: float | None = None, trained: bool = False):
    return TaskFigures(number, alone, without, others, trained)


def test_the_sentence_compares_the_same_tasks_and_counts_them():
    found = figures(*(task(n, 0.7, 0.5) for n in range(10)), *(task(n, 0.2, 0.4) for n in range(10, 14)))
    assert str(found) == "First click with it .56, without .47, on 14 tasks: better on 10, worse on 4."
    assert found.is_enough


def test_few_tasks_are_called_too_few():
    assert str(figures(task(1, 0.7, 0.5))).endswith(
        "on 1 task: better on 1, worse on 0. 1 task is too few to judge by."
    )
    assert "too few" in str(figures(*(task(n, 0.7, 0.5) for n in range(4))))
    assert "too few" not in str(figures(*(task(n, 0.7, 0.5) for n in range(5))))


def test_the_other_references_are_compared_where_there_are_any():
    tasks = [task(n, 0.7, 0.5, 0.6) for n in range(5)]
    assert str(figures(*tasks)).endswith("With the other references in use .60.")
    assert str(figures(*tasks, task(9, 1.0, 0.5))).endswith("With the other references in use .60 (on 5).")


def test_photographs_that_the_model_was_trained_on_are_named():
    found = figures(*(task(n, 0.7, 0.5, trained=n < 3) for n in range(6)))
    assert "trained on 3 of them" in str(found)


def test_without_a_task_the_reason_is_shown():
    assert str(figures()) == "Not measured: no annotated task with another photograph shows the label."
    assert str(figures(problems=["its image cannot be used: gone"])) == (
        "Not measured: its image cannot be used: gone."
    )


def test_the_figures_of_the_serving_version_are_shown_else_the_newest():
    old, new = figures(task(1, 1, 1), model="a", at=1), figures(task(1, 1, 1), model="b", at=2)
    assert best_to_show([old, new], "a") is old
    assert best_to_show([old, new], "c") is new
    assert best_to_show([], "c") is None
