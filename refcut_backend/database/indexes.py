"""Indexes for what clicks, webhooks, `/status` and comparisons read of large projects.

An index of some rows is used by statements that repeat its condition.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Index
from sqlalchemy.orm import InstrumentedAttribute

from refcut_backend.database.annotation_counts import IS_NEW
from refcut_backend.database.click_tables import ClickEvent, ClickPolarity, UnacceptedMask
from refcut_backend.database.tables import AnnotationState, Reference, TaskState


def _of_some_rows(
    name: str,
    condition: ColumnElement[bool],
    *columns: InstrumentedAttribute[Any],
) -> Index:
    return Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


INDEXES = (
    # The newest references of a label: every click.
    Index("references_newest", Reference.project_id, Reference.label, Reference.annotated_at, Reference.id),
    # What a task has: every webhook, every compared task, every task of a snapshot.
    Index("references_of_task", Reference.project_id, Reference.task_id, Reference.label),
    Index("annotation_states_of_task", AnnotationState.project_id, AnnotationState.task_id),
    Index("click_events_of_task", ClickEvent.project_id, ClickEvent.task_id),
    Index("click_events_of_region", ClickEvent.project_id, ClickEvent.region_id),
    # The labels that were clicked last: every task that is opened.
    Index("click_events_newest", ClickEvent.project_id, ClickEvent.id),
    _of_some_rows(
        "unaccepted_masks_missing",
        UnacceptedMask.annotation_id.is_not(None),
        UnacceptedMask.project_id,
        UnacceptedMask.annotation_id,
    ),
    # The oldest new annotation, and what is left out: `/status`.
    _of_some_rows("annotation_states_new", IS_NEW, AnnotationState.project_id, AnnotationState.locked_at),
    _of_some_rows("references_left_out", Reference.problem.is_not(None), Reference.project_id),
    _of_some_rows(
        "annotation_states_left_out", AnnotationState.problem.is_not(None), AnnotationState.project_id
    ),
    _of_some_rows("task_states_left_out", TaskState.problem.is_not(None), TaskState.project_id),
    # Tasks that the next comparison must look at, whatever has changed.
    _of_some_rows("task_states_to_check", TaskState.needs_check.is_(True), TaskState.project_id),
    _of_some_rows(
        "task_states_unread", TaskState.sync_fingerprint.is_(None), TaskState.project_id, TaskState.task_id
    ),
    # Clicks that are too old.
    Index("click_events_oldest", ClickEvent.answered_at),
    Index("click_polarities_oldest", ClickPolarity.recorded_at),
)
