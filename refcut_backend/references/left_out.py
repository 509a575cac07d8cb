"""Which annotations and references are left out, and why: for `/status` and `refcut doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, null, select, union_all
from sqlalchemy.orm import Session

from refcut_backend.database.tables import AnnotationState, Reference, TaskState

SHOWN = 20


@dataclass(frozen=True)
class LeftOut:
    """An annotation, or all annotations of a task, that cannot be used.

    Attributes:
        task_id: The task; None if it is not known.
        annotation_id: The annotation; None for all annotations of the task.
        problem: Why, and what to do about it.
    """

    task_id: int | None
    annotation_id: int | None
    problem: str

    def __str__(self) -> str:
        """Names it with the problem, in one line."""
        task = [] if self.task_id is None else [f"task {self.task_id}"]
        annotation = [] if self.annotation_id is None else [f"annotation {self.annotation_id}"]
        return f"{', '.join(task + annotation)}: {self.problem}"


def annotations_left_out(engine: Engine, project_id: int, limit: int = SHOWN) -> list[LeftOut]:
    """Returns what is left out of a project, tasks first, at most `limit` entries."""
    tasks = select(TaskState.task_id, null(), TaskState.problem).where(
        TaskState.project_id == project_id, TaskState.problem.is_not(None)
    )
    annotations = select(
        AnnotationState.task_id, AnnotationState.annotation_id, AnnotationState.problem
    ).where(AnnotationState.project_id == project_id, AnnotationState.problem.is_not(None))
    with Session(engine) as session:
        rows = [
            *session.execute(tasks.order_by(TaskState.task_id).limit(limit)),
            *session.execute(annotations.order_by(AnnotationState.annotation_id).limit(limit)),
        ]
    return [LeftOut(task_id, annotation_id, problem) for task_id, annotation_id, problem in rows[:limit]]


def references_left_out(engine: Engine, project_id: int, limit: int = SHOWN) -> list[LeftOut]:
    """Returns references that could not be used when they were last tried, at most `limit`."""
    query = (
        select(Reference.task_id, Reference.annotation_id, Reference.label, Reference.problem)
        .where(Reference.project_id == project_id, Reference.problem.is_not(None))
        .order_by(Reference.id)
        .limit(limit)
    )
    with Session(engine) as session:
        return [
            LeftOut(task_id or None, annotation_id, f"the reference of '{label}' is left out: {problem}")
            for task_id, annotation_id, label, problem in session.execute(query)
        ]


def projects_with_left_out(engine: Engine) -> set[int]:
    """Returns the project ids of which something is left out."""
    query = union_all(
        select(TaskState.project_id).where(TaskState.problem.is_not(None)),
        select(AnnotationState.project_id).where(AnnotationState.problem.is_not(None)),
        select(Reference.project_id).where(Reference.problem.is_not(None)),
    )
    with Session(engine) as session:
        return set(session.scalars(query))
