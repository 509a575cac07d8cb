"""Follows annotations into the registry: events in any order, any number of times, give the same state.

The newest `updated_at` of an annotation wins, and a deletion wins over everything: annotation and task ids are never
used again, so the states of deleted ones stay as tombstones. Only Label Studio's own list, read after the deletion was
seen, may say that something is still there after all.

Every change first writes to the row of the task or annotation that it speaks of, and reads afterwards: that row is its
lock, in SQLite and in PostgreSQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy import ColumnElement, Engine, Update, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.database.tables import AnnotationState, Reference, TaskState, WebhookEvent
from refcut_backend.label_studio.payloads import sortable
from refcut_backend.references.parse import LabelReference, mask_to_png
from refcut_backend.references.selection import UNKNOWN, Author


class EventLog:
    """For events that change nothing in the registry of annotations; those that do are noted with their change."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, project_id: int, action: str, subject_id: int, version: str) -> bool:
        """Returns False when the event is known."""
        try:
            with Session(self._engine) as session, session.begin():
                return record_event(session, project_id, action, subject_id, version, None)
        except IntegrityError:
            return False  # another process has just noted it


def record_event(
    session: Session, project_id: int, action: str, subject_id: int, version: str, problem: str | None
) -> bool:
    """Notes a webhook; "" is none. Returns False when it has been noted before."""
    if not action:
        return True
    same = select(WebhookEvent.id).where(
        WebhookEvent.project_id == project_id,
        WebhookEvent.action == action,
        WebhookEvent.subject_id == subject_id,
        WebhookEvent.subject_version == version,
    )
    if session.scalar(same) is not None:
        return False
    session.add(
        WebhookEvent(
            project_id=project_id,
            action=action,
            subject_id=subject_id,
            subject_version=version,
            problem=problem,
        )
    )
    return True


T = TypeVar("T")

TRIES = 3
CLOCKS_DIFFER_S = 5.0
"""Web processes on several machines may disagree by so much."""


@dataclass(frozen=True)
class AnnotationUpdate:
    """What an annotation says now: (reference, image address) pairs, or none.

    task_said: what Label Studio's list will say of the task, when this is all that its annotations say.
    mask_regions: how many regions it has that can be masks; 0 for a skipped one.
    """

    project_id: int
    annotation_id: int
    task_id: int
    updated_at: str
    found: Sequence[tuple[LabelReference, str]] = ()
    author: Author = UNKNOWN
    problem: str | None = None
    task_fingerprint: str | None = None
    mask_regions: int = 0


class AnnotationStates:
    """One annotation's newest state replaces its older one."""

    def __init__(self, engine: Engine, now: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._now = now

    def apply_webhook(self, update: AnnotationUpdate, action: str) -> bool:
        """Takes the state that a webhook brings. Returns False when it is known, late, or of something deleted."""

        def work(session: Session) -> bool:
            task = self._lock_task(session, update.project_id, update.task_id)
            state = self._lock_annotation(session, update.project_id, update.annotation_id)
            updated_at = sortable(update.updated_at)
            if not record_event(
                session, update.project_id, action, update.annotation_id, updated_at, update.problem
            ):
                return False
            task.sync_fingerprint, task.webhook_at = None, self._now()
            state.webhook_at = self._now()
            if task.deleted_at is not None or state.deleted_at is not None or state.updated_at >= updated_at:
                return False
            task.sync_fingerprint = update.task_fingerprint
            self._take(session, state, update)
            return True

        return self._run(work)

    def apply_listing(self, update: AnnotationUpdate, asked_at: float) -> bool:
        """Takes the state that Label Studio's list showed. Returns False when something newer is known.

        asked_at: when the list was asked for, seconds since 1970.
        """

        def work(session: Session) -> bool:
            task = self._lock_task(session, update.project_id, update.task_id)
            state = self._lock_annotation(session, update.project_id, update.annotation_id)
            deletions = [when for when in (task.deleted_at, state.deleted_at) if when is not None]
            if any(when > asked_at - CLOCKS_DIFFER_S for when in deletions):
                return False
            if state.updated_at > sortable(update.updated_at):
                return False
            task.deleted_at = state.deleted_at = None
            self._take(session, state, update)
            return True

        return self._run(work)

    def remove_missing(
        self, project_id: int, task_id: int, present: Collection[int], asked_at: float
    ) -> list[int]:
        """Removes what annotations say that Label Studio's list of a task lacks; returns those that gave references.

        They are deleted or skipped. What a webhook has brought since the list was asked for stays.
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
            absent = set()
            for reference, webhook_at in session.execute(query).all():
                is_old = webhook_at is None or webhook_at < asked_at - CLOCKS_DIFFER_S
                if reference.annotation_id not in present and is_old:
                    absent.add(reference.annotation_id)
                    session.delete(reference)
            forget_masks(session, project_id, present, asked_at, AnnotationState.task_id == task_id)
            return sorted(absent)

        return self._run(work)

    def remove_annotations(self, project_id: int, annotation_ids: Sequence[int], action: str = "") -> None:
        """Forgets what deleted annotations said. action: of the webhook that says so."""

        def work(session: Session, annotation_id: int) -> None:
            of_it = AnnotationState.project_id == project_id, AnnotationState.annotation_id == annotation_id
            task_id = session.scalar(select(AnnotationState.task_id).where(*of_it))
            task = None if task_id is None else self._lock_task(session, project_id, task_id)
            state = self._lock_annotation(session, project_id, annotation_id)
            record_event(session, project_id, action, annotation_id, "", None)
            state.deleted_at, state.mask_regions = state.deleted_at or self._now(), 0
            self._take_away(session, project_id, task, Reference.annotation_id == annotation_id)

        for annotation_id in annotation_ids:
            self._run(partial(work, annotation_id=annotation_id))

    def remove_tasks(self, project_id: int, task_ids: Sequence[int], action: str = "") -> None:
        """Forgets what annotations of deleted tasks said. action: of the webhook that says so."""

        def work(session: Session, task_id: int) -> None:
            task = self._lock_task(session, project_id, task_id)
            record_event(session, project_id, action, task_id, "", None)
            task.deleted_at = task.deleted_at or self._now()
            of_task = AnnotationState.project_id == project_id, AnnotationState.task_id == task_id
            session.execute(update(AnnotationState).where(*of_task).values(mask_regions=0))
            self._take_away(session, project_id, task, Reference.task_id == task_id)

        for task_id in task_ids:
            self._run(partial(work, task_id=task_id))

    def _take_away(
        self, session: Session, project_id: int, task: TaskState | None, which: ColumnElement[bool]
    ) -> None:
        """Removes references because a webhook says so; the next comparison looks whether it is true."""
        gone = session.execute(delete(Reference).where(Reference.project_id == project_id, which))
        if task is not None:
            task.sync_fingerprint, task.webhook_at = None, self._now()
            task.needs_check = task.needs_check or bool(gone.rowcount)  # type: ignore[attr-defined]

    def compare_anew(self, project_id: int, task_ids: Collection[int]) -> None:
        """Has the next comparison read the annotations of some tasks, though they have not changed."""
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(TaskState)
                .where(TaskState.project_id == project_id, TaskState.task_id.in_(task_ids))
                .values(sync_fingerprint=None)
            )

    def _take(self, session: Session, state: AnnotationState, update: AnnotationUpdate) -> None:
        state.updated_at, state.task_id = sortable(update.updated_at), update.task_id
        state.mask_regions = update.mask_regions
        query = select(Reference).where(
            Reference.project_id == update.project_id, Reference.annotation_id == update.annotation_id
        )
        rows = {(row.label, row.to_name): row for row in session.scalars(query)}
        for reference, address in update.found:
            row = rows.pop((reference.label, reference.to_name), None) or Reference(
                project_id=update.project_id,
                annotation_id=update.annotation_id,
                label=reference.label,
                to_name=reference.to_name,
            )
            _fill(row, reference, address, update)
            session.add(row)
        for row in rows.values():
            session.delete(row)

    def _lock_task(self, session: Session, project_id: int, task_id: int) -> TaskState:
        row = TaskState.project_id == project_id, TaskState.task_id == task_id
        if not _written(session, update(TaskState).where(*row).values(locked_at=self._now())):
            session.add(TaskState(project_id=project_id, task_id=task_id, locked_at=self._now()))
            session.flush()
        return session.get_one(TaskState, (project_id, task_id), populate_existing=True)

    def _lock_annotation(self, session: Session, project_id: int, annotation_id: int) -> AnnotationState:
        row = AnnotationState.project_id == project_id, AnnotationState.annotation_id == annotation_id
        if not _written(session, update(AnnotationState).where(*row).values(locked_at=self._now())):
            # An earlier version of this program kept references without states.
            known = select(func.max(Reference.annotated_at)).where(
                Reference.project_id == project_id, Reference.annotation_id == annotation_id
            )
            session.add(
                AnnotationState(
                    project_id=project_id,
                    annotation_id=annotation_id,
                    updated_at=sortable(session.scalar(known) or ""),
                    locked_at=self._now(),
                )
            )
            session.flush()
        return session.get_one(AnnotationState, (project_id, annotation_id), populate_existing=True)

    def _run(self, work: Callable[[Session], T]) -> T:
        """One transaction; again when another process has just made the row that locks it."""
        for _ in range(TRIES - 1):
            try:
                with Session(self._engine) as session, session.begin():
                    return work(session)
            except IntegrityError:
                continue
        with Session(self._engine) as session, session.begin():
            return work(session)


def forget_masks(
    session: Session, project_id: int, present: Collection[int], asked_at: float, *which: ColumnElement[bool]
) -> None:
    """Notes which annotations can teach nothing any more, since Label Studio's list lacks them.

    present: those on the list. asked_at: when it was asked for; what a webhook has brought since stays.
    """
    known = select(AnnotationState).where(
        AnnotationState.project_id == project_id, AnnotationState.mask_regions > 0, *which
    )
    for state in session.scalars(known):
        is_old = state.webhook_at is None or state.webhook_at < asked_at - CLOCKS_DIFFER_S
        if is_old and state.annotation_id not in present:
            state.mask_regions = 0


def _written(session: Session, statement: Update) -> int:
    """Runs an update; returns how many rows it met."""
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def _fill(row: Reference, reference: LabelReference, address: str, update: AnnotationUpdate) -> None:
    """Keeps the row's id: a click that is under way finds its reference by it."""
    row.task_id = update.task_id
    row.annotated_at = sortable(update.updated_at)
    row.explicitly_added = reference.explicitly_added
    row.author_id, row.author_email = update.author.id, update.author.email
    version = reference.version(address)
    if row.version == version:
        return
    row.version = version
    row.image_address = address
    row.positive_png = mask_to_png(reference.positive_hw)
    row.negative_png = None if reference.negative_hw is None else mask_to_png(reference.negative_hw)
