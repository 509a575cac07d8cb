"""Counts a project's annotations with masks, and those that are new or changed since its last training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.orm import Session

from refcut_backend.database.annotation_counts import IS_NEW, AnnotationCount
from refcut_backend.database.engine import upsert
from refcut_backend.database.tables import AnnotationState
from refcut_backend.references.annotation_states import clear_masks, masks_before

ROWS_AT_ONCE = 500
"""Rows per transaction: clicks are written to the same database meanwhile."""


@dataclass(frozen=True)
class AnnotationCounts:
    """Counts of a project.

    Attributes:
        annotations: Number of submitted annotations with masks that were not skipped.
        new: Number of those that no training has seen in their present state.
        since: When the first of the new ones came, in seconds since 1970; None without a new one.
    """

    annotations: int = 0
    new: int = 0
    since: float | None = None


class NewAnnotations:
    """Counts annotations in the table that webhooks and comparisons with Label Studio fill."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def by_project(self) -> dict[int, AnnotationCounts]:
        """Counts of all projects with annotations."""
        return self._counts(AnnotationCount.annotations > 0)

    def of(self, project_id: int) -> AnnotationCounts:
        """Counts of one project."""
        counts = self._counts(AnnotationCount.project_id == project_id)
        return counts.get(project_id, AnnotationCounts())

    def _counts(self, which: ColumnElement[bool]) -> dict[int, AnnotationCounts]:
        first_new = (
            select(func.min(AnnotationState.locked_at))
            .where(AnnotationState.project_id == AnnotationCount.project_id, IS_NEW)
            .scalar_subquery()
        )
        query = select(
            AnnotationCount.project_id,
            AnnotationCount.annotations,
            AnnotationCount.new_annotations,
            first_new,
        ).where(which)
        with Session(self._engine) as session:
            rows = session.execute(query)
            return {project: AnnotationCounts(total, new, since) for project, total, new, since in rows}

    def taken(self, project_id: int, states: Mapping[int, str], now: float) -> None:
        """Record that a training has seen these annotations.

        Args:
            project_id: The project.
            states: Annotation id to the sortable `updated_at` of the state that was seen.
            now: Seconds since 1970.
        """
        # Rows that are not known yet are filled by their webhook or by the next comparison.
        rows: list[dict[str, Any]] = [
            {
                "project_id": project_id,
                "annotation_id": annotation_id,
                "trained_until": updated_at,
                "locked_at": now,
            }
            for annotation_id, updated_at in sorted(states.items())
        ]
        statement = upsert(self._engine, AnnotationState, ["trained_until"])
        for start in range(0, len(rows), ROWS_AT_ONCE):
            with self._engine.begin() as connection:
                connection.execute(statement, rows[start : start + ROWS_AT_ONCE])

    def absent(self, project_id: int, present: Collection[int], requested_at: float) -> None:
        """Stop counting annotations that are missing in Label Studio's list of the whole project.

        Args:
            project_id: The project.
            present: Ids of the annotations in the list.
            requested_at: When the list was requested, in seconds since 1970; newer webhooks take precedence.
        """
        listed = frozenset(present)
        with Session(self._engine) as session:
            known = session.scalars(masks_before(project_id, requested_at))
            missing = sorted(annotation_id for annotation_id in known if annotation_id not in listed)
        for start in range(0, len(missing), ROWS_AT_ONCE):
            with Session(self._engine) as session, session.begin():
                clear_masks(session, project_id, missing[start : start + ROWS_AT_ONCE], requested_at)
