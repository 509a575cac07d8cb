"""Counts a project's annotations with masks, and those that are new or changed since its last training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, func, or_, select, update
from sqlalchemy.orm import Session

from refcut_backend.database.tables import AnnotationState
from refcut_backend.references.annotation_states import clear_missing_masks

ROWS_AT_ONCE = 500
_CAN_TEACH = AnnotationState.mask_regions > 0
_IS_NEW: ColumnElement[bool] = and_(
    _CAN_TEACH,
    or_(
        AnnotationState.trained_until.is_(None),
        # Not "earlier": Label Studio's clock goes back when it was wrong, or when a backup is restored.
        AnnotationState.trained_until != AnnotationState.updated_at,
    ),
)


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
        return self._counts(_CAN_TEACH)

    def of(self, project_id: int) -> AnnotationCounts:
        """Counts of one project."""
        counts = self._counts(and_(_CAN_TEACH, AnnotationState.project_id == project_id))
        return counts.get(project_id, AnnotationCounts())

    def _counts(self, which: ColumnElement[bool]) -> dict[int, AnnotationCounts]:
        count_new = func.count(AnnotationState.annotation_id).filter(_IS_NEW)
        first_new = func.min(AnnotationState.locked_at).filter(_IS_NEW)
        query = (
            select(AnnotationState.project_id, func.count(), count_new, first_new)
            .where(which)
            .group_by(AnnotationState.project_id)
        )
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
        of_project = select(AnnotationState.annotation_id).where(AnnotationState.project_id == project_id)
        rows: list[dict[str, Any]] = [
            {"project_id": project_id, "annotation_id": annotation_id, "trained_until": updated_at}
            for annotation_id, updated_at in states.items()
        ]
        # In small transactions: clicks are written to the same database meanwhile.
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            with Session(self._engine) as session, session.begin():
                known = set(session.scalars(of_project))
                old = [row for row in part if row["annotation_id"] in known]
                if old:
                    session.execute(update(AnnotationState), old)
                # The others are not known yet; their webhook or the next comparison will fill the rest of the row.
                new = [row for row in part if row["annotation_id"] not in known]
                session.add_all(AnnotationState(**row, locked_at=now) for row in new)

    def absent(self, project_id: int, present: Collection[int], requested_at: float) -> None:
        """Stop counting annotations that are missing in Label Studio's list of the whole project.

        Args:
            project_id: The project.
            present: Ids of the annotations in the list.
            requested_at: When the list was requested, in seconds since 1970; newer webhooks take precedence.
        """
        with Session(self._engine) as session, session.begin():
            clear_missing_masks(session, project_id, present, requested_at)
