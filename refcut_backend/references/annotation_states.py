"""Applies what Label Studio reports about annotations to the reference registry.

There are two sources. A webhook reports one change at once, but webhooks get lost, are repeated and arrive in any order.
A listing (the API's list of a task's annotations) is complete, but was true only when it was requested. Both may be
applied in any order and any number of times; the registry always ends in the same state:

    report                          is applied                                     and then
    ------------------------------  ---------------------------------------------  -----------------------------------
    webhook: created or updated     if it is newer than the known state, and       needs a listing, unless the webhook
      `apply_webhook`                 neither annotation nor task was deleted        covers all of the task
    webhook: deleted                always; the state stays as a tombstone         needs a listing to confirm it
      `remove_annotations`,
      `remove_tasks`
    listing: annotation present     always, except for what a webhook reported     lifts a tombstone
      `apply_listing`                 since the request: a newer state, a deletion
    listing: annotation absent      if no webhook was reported since the request   removes its references
      `remove_missing`

"Newer" is the annotation's `updated_at`, a time of Label Studio's clock, which may have been wrong, and goes back when a
backup is restored. So it only orders webhooks; a listing is the truth, whatever its times say. "Since the request" uses
our own clocks, and allows for web processes on machines whose clocks differ by `CLOCK_TOLERANCE_S`. A tombstone can stay
for ever, because a listing lifts it if the id exists again.

`TaskState.sync_fingerprint` says whether a listing is needed: None means yes; otherwise it is the fingerprint with which
Label Studio lists the task while nothing has changed (`reconcile.py`).

Locking: every change first writes the row of its task, then that of its annotation, and reads afterwards. The written
row is the lock, in SQLite and in PostgreSQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import ColumnElement, Engine, Select, Update, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.database.tables import AnnotationState, Reference, TaskState
from refcut_backend.label_studio.payloads import Timestamp
from refcut_backend.references.event_log import record_event
from refcut_backend.references.parse import LabelReference, mask_to_png
from refcut_backend.references.selection import UNKNOWN, Author

T = TypeVar("T")

TRANSACTION_TRIES = 3
IDS_AT_ONCE = 50
"""Deleted annotations or tasks per transaction. A webhook may name ten thousand, and clicks write in between."""
CLOCK_TOLERANCE_S = 5.0
"""How far the clocks of web processes on several machines may differ."""


@dataclass(frozen=True)
class AnnotationUpdate:
    """The state of an annotation as Label Studio reports it.

    Attributes:
        updated_at: The annotation's `updated_at`.
        found: (reference, image address) pairs that the annotation gives; empty if it gives none.
        author: User who saved the annotation last.
        problem: Why the annotation, or regions of it that are marked as references, were not used; None if all were.
        task_fingerprint: `ListedTask.fingerprint` of the task if this annotation is its only one; then no listing is
            needed. None otherwise.
        mask_regions: Number of regions that can be masks; 0 for a skipped annotation.
        second_labels: Number of its masks with a second label (`label_studio.regions.second_labels`).
    """

    project_id: int
    annotation_id: int
    task_id: int
    updated_at: Timestamp
    found: Sequence[tuple[LabelReference, str]] = ()
    author: Author = UNKNOWN
    problem: str | None = None
    task_fingerprint: str | None = None
    mask_regions: int = 0
    second_labels: int = 0


class AnnotationStates:
    """Keeps the newest known state of every annotation, and the references that it gives."""

    def __init__(self, engine: Engine, now: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._now = now

    def apply_webhook(self, change: AnnotationUpdate, action: str) -> bool:
        """Applies the state that a webhook reports.

        Args:
            change: The reported state.
            action: Label Studio's name of the webhook's action.

        Returns:
            False if nothing changed: the webhook was applied before, a newer state is known, or the annotation or its
            task was deleted.
        """

        def work(session: Session) -> bool:
            task = self._lock_task(session, change.project_id, change.task_id)
            state = self._lock_annotation(session, change.project_id, change.annotation_id)
            if not record_event(
                session,
                change.project_id,
                action,
                change.annotation_id,
                change.updated_at,
                change.problem,
            ):
                return False
            task.sync_fingerprint, task.webhook_at = None, self._now()
            state.webhook_at = self._now()
            is_deleted = task.deleted_at is not None or state.deleted_at is not None
            if is_deleted or state.updated_at >= change.updated_at:
                return False
            task.sync_fingerprint = change.task_fingerprint
            if self._store(session, state, change):
                task.needs_check = True
            return True

        return self._run(work)

    def apply_listing(self, change: AnnotationUpdate, requested_at: float) -> bool:
        """Applies the state that Label Studio's list shows.

        Args:
            change: The listed state.
            requested_at: When the list was requested, seconds since 1970.

        Returns:
            False if a webhook has reported a newer state or a deletion since the request.
        """

        def work(session: Session) -> bool:
            task = self._lock_task(session, change.project_id, change.task_id)
            state = self._lock_annotation(session, change.project_id, change.annotation_id)
            deletions = [when for when in (task.deleted_at, state.deleted_at) if when is not None]
            if any(when > requested_at - CLOCK_TOLERANCE_S for when in deletions):
                return False
            if not _is_before(state.webhook_at, requested_at) and state.updated_at > change.updated_at:
                return False
            task.deleted_at = state.deleted_at = None
            self._store(session, state, change)
            return True

        return self._run(work)

    def remove_missing(
        self, project_id: int, task_id: int, present: Collection[int], requested_at: float
    ) -> list[int]:
        """Removes the references of annotations that a task's list lacks: they were deleted or skipped.

        Annotations that a webhook reported since the request are kept.

        Args:
            project_id: The task's project.
            task_id: The listed task.
            present: Ids of the listed annotations.
            requested_at: When the list was requested, seconds since 1970.

        Returns:
            Ids of the annotations whose references were removed, in ascending order.
        """

        def work(session: Session) -> list[int]:
            self._lock_task(session, project_id, task_id)
            same = (AnnotationState.project_id == Reference.project_id) & (
                AnnotationState.annotation_id == Reference.annotation_id
            )
            query = (
                select(Reference, AnnotationState.webhook_at)
                .outerjoin(AnnotationState, same)
                .where(Reference.project_id == project_id, Reference.task_id == task_id)
            )
            missing = set()
            for reference, webhook_at in session.execute(query).all():
                if reference.annotation_id not in present and _is_before(webhook_at, requested_at):
                    missing.add(reference.annotation_id)
                    session.delete(reference)
            of_task = masks_before(project_id, requested_at).where(AnnotationState.task_id == task_id)
            unlisted = [found for found in session.scalars(of_task) if found not in present]
            if unlisted:
                clear_masks(session, project_id, unlisted, requested_at)
            return sorted(missing)

        return self._run(work)

    def remove_annotations(self, project_id: int, annotation_ids: Sequence[int], action: str = "") -> None:
        """Removes the references of deleted annotations and marks those as deleted.

        Args:
            project_id: The annotations' project.
            annotation_ids: The deleted annotations.
            action: Label Studio's name of the webhook's action; "" if there was no webhook.
        """

        def work(session: Session, ids: Sequence[int]) -> None:
            those = AnnotationState.project_id == project_id, AnnotationState.annotation_id.in_(ids)
            rows = session.execute(
                select(AnnotationState.annotation_id, AnnotationState.task_id).where(*those)
            )
            task_of = {annotation_id: task_id for annotation_id, task_id in rows if task_id is not None}
            tasks = {
                task_id: self._lock_task(session, project_id, task_id)
                for task_id in sorted(set(task_of.values()))
            }
            for annotation_id in ids:
                state = self._lock_annotation(session, project_id, annotation_id)
                record_event(session, project_id, action, annotation_id, "", None)
                state.deleted_at = state.deleted_at or self._now()
                state.mask_regions, state.second_labels, state.problem = 0, 0, None
                task = tasks[task_of[annotation_id]] if annotation_id in task_of else None
                self._remove(session, project_id, task, Reference.annotation_id == annotation_id)

        self._run_in_parts(work, annotation_ids)

    def remove_tasks(self, project_id: int, task_ids: Sequence[int], action: str = "") -> None:
        """Removes the references of deleted tasks and marks those as deleted.

        Args:
            project_id: The tasks' project.
            task_ids: The deleted tasks.
            action: Label Studio's name of the webhook's action; "" if there was no webhook.
        """

        def work(session: Session, ids: Sequence[int]) -> None:
            tasks = [self._lock_task(session, project_id, task_id) for task_id in ids]
            those = AnnotationState.project_id == project_id, AnnotationState.task_id.in_(ids)
            session.execute(
                update(AnnotationState).where(*those).values(mask_regions=0, second_labels=0, problem=None)
            )
            for task in tasks:
                record_event(session, project_id, action, task.task_id, "", None)
                task.deleted_at = task.deleted_at or self._now()
                self._remove(session, project_id, task, Reference.task_id == task.task_id)

        self._run_in_parts(work, task_ids)

    def _remove(
        self, session: Session, project_id: int, task: TaskState | None, which: ColumnElement[bool]
    ) -> None:
        """Removes references because of a webhook; the next comparison must confirm it."""
        removed = session.execute(delete(Reference).where(Reference.project_id == project_id, which))
        if task is not None:
            task.sync_fingerprint, task.webhook_at = None, self._now()
            task.needs_check = task.needs_check or bool(removed.rowcount)  # type: ignore[attr-defined]

    def require_listing(self, project_id: int, task_ids: Collection[int]) -> None:
        """Makes the next comparison read the annotations of these tasks, although they have not changed."""
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(TaskState)
                .where(TaskState.project_id == project_id, TaskState.task_id.in_(task_ids))
                .values(sync_fingerprint=None)
            )

    def _store(self, session: Session, state: AnnotationState, change: AnnotationUpdate) -> bool:
        """Makes the annotation's rows in the registry those of its new state; returns whether one was removed."""
        state.updated_at, state.task_id = change.updated_at, change.task_id
        state.mask_regions, state.second_labels = change.mask_regions, change.second_labels
        state.problem = change.problem
        query = select(Reference).where(
            Reference.project_id == change.project_id, Reference.annotation_id == change.annotation_id
        )
        rows = {(row.label, row.to_name): row for row in session.scalars(query)}
        for reference, address in change.found:
            row = rows.pop((reference.label, reference.to_name), None) or Reference(
                project_id=change.project_id,
                annotation_id=change.annotation_id,
                label=reference.label,
                to_name=reference.to_name,
            )
            _fill(row, reference, address, change)
            session.add(row)
        for row in rows.values():
            session.delete(row)
        return bool(rows)

    def _lock_task(self, session: Session, project_id: int, task_id: int) -> TaskState:
        row = TaskState.project_id == project_id, TaskState.task_id == task_id
        if not _rows_matched(session, update(TaskState).where(*row).values(locked_at=self._now())):
            session.add(TaskState(project_id=project_id, task_id=task_id, locked_at=self._now()))
            session.flush()
        return session.get_one(TaskState, (project_id, task_id), populate_existing=True)

    def _lock_annotation(self, session: Session, project_id: int, annotation_id: int) -> AnnotationState:
        row = AnnotationState.project_id == project_id, AnnotationState.annotation_id == annotation_id
        if not _rows_matched(session, update(AnnotationState).where(*row).values(locked_at=self._now())):
            # An earlier version of this program stored references without states.
            known = select(func.max(Reference.annotated_at)).where(
                Reference.project_id == project_id, Reference.annotation_id == annotation_id
            )
            session.add(
                AnnotationState(
                    project_id=project_id,
                    annotation_id=annotation_id,
                    updated_at=Timestamp(session.scalar(known) or ""),
                    locked_at=self._now(),
                )
            )
            session.flush()
        return session.get_one(AnnotationState, (project_id, annotation_id), populate_existing=True)

    def _run_in_parts(self, work: Callable[[Session, Sequence[int]], None], ids: Sequence[int]) -> None:
        """Runs a transaction per `IDS_AT_ONCE` ids, in ascending order: opposite orders of locks would deadlock."""
        ordered = sorted(set(ids))
        for start in range(0, len(ordered), IDS_AT_ONCE):
            part = ordered[start : start + IDS_AT_ONCE]

            def of_part(session: Session, part: Sequence[int] = part) -> None:
                work(session, part)

            self._run(of_part)

    def _run(self, work: Callable[[Session], T]) -> T:
        """Runs one transaction; repeats it if another process created the locking row at the same moment."""
        for _ in range(TRANSACTION_TRIES - 1):
            try:
                with Session(self._engine) as session, session.begin():
                    return work(session)
            except IntegrityError:
                continue
        with Session(self._engine) as session, session.begin():
            return work(session)


def masks_before(project_id: int, requested_at: float) -> Select[int]:
    """Selects the ids of a project's annotations with masks or problems, of which no webhook came since a request.

    Args:
        project_id: The project.
        requested_at: When a list was requested, seconds since 1970.
    """
    return select(AnnotationState.annotation_id).where(
        AnnotationState.project_id == project_id,
        or_(AnnotationState.mask_regions > 0, AnnotationState.problem.is_not(None)),
        _no_webhook_since(requested_at),
    )


def clear_masks(
    session: Session, project_id: int, annotation_ids: Collection[int], requested_at: float
) -> None:
    """Marks annotations that a list lacks as empty, except those that a webhook reported since the request.

    Args:
        session: An open transaction.
        project_id: The annotations' project.
        annotation_ids: The annotations.
        requested_at: When the list was requested, seconds since 1970.
    """
    those = AnnotationState.project_id == project_id, AnnotationState.annotation_id.in_(annotation_ids)
    session.execute(
        update(AnnotationState)
        .where(*those, _no_webhook_since(requested_at))
        .values(mask_regions=0, second_labels=0, problem=None)
        .execution_options(synchronize_session=False)
    )


def _no_webhook_since(requested_at: float) -> ColumnElement[bool]:
    """Whether the last webhook, if any, surely arrived before a list was requested."""
    arrived = AnnotationState.webhook_at
    return or_(arrived.is_(None), arrived < requested_at - CLOCK_TOLERANCE_S)


def _is_before(webhook_at: float | None, requested_at: float) -> bool:
    """As `_no_webhook_since`, of a row that was read."""
    return webhook_at is None or webhook_at < requested_at - CLOCK_TOLERANCE_S


def _rows_matched(session: Session, statement: Update) -> int:
    """Runs an update; returns the number of rows that it matched."""
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def _fill(row: Reference, reference: LabelReference, address: str, change: AnnotationUpdate) -> None:
    """Sets the row's content. Its id stays, because a click in progress refers to the reference by it."""
    row.task_id = change.task_id
    row.annotated_at = change.updated_at
    row.explicitly_added = reference.explicitly_added
    row.author_id, row.author_email = change.author.id, change.author.email
    version = reference.version(address)
    if row.version == version:
        return
    row.version, row.problem = version, None
    row.image_address = address
    row.positive_png = mask_to_png(reference.positive_hw)
    row.negative_png = None if reference.negative_hw is None else mask_to_png(reference.negative_hw)
