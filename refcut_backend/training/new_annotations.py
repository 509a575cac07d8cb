"""Which annotations there are to learn from, and which of them are new or changed since the last training."""

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
        AnnotationState.trained_until < AnnotationState.updated_at,
    ),
)


@dataclass(frozen=True)
class AnnotationCounts:
    """annotations: submitted, not skipped, with masks. new: those that no training has seen in their present state.
    since: when the first of these came, seconds since 1970."""

    annotations: int = 0
    new: int = 0
    since: float | None = None


class NewAnnotations:
    """What webhooks and comparisons have brought, as training sees it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def by_project(self) -> dict[int, AnnotationCounts]:
        """Projects in which anything was ever annotated."""
        new = func.count(AnnotationState.annotation_id).filter(_IS_NEW)
        since = func.min(AnnotationState.locked_at).filter(_IS_NEW)
        query = (
            select(AnnotationState.project_id, func.count(), new, since)
            .where(_CAN_TEACH)
            .group_by(AnnotationState.project_id)
        )
        with Session(self._engine) as session:
            return {
                project: AnnotationCounts(all, fresh, when)
                for project, all, fresh, when in session.execute(query)
            }

    def of(self, project_id: int) -> AnnotationCounts:
        return self.by_project().get(project_id, AnnotationCounts())

    def taken(self, project_id: int, states: Mapping[int, str], now: float) -> None:
        """Notes that a training has seen these annotations. states: annotation id to its sortable `updated_at`."""
        of_project = select(AnnotationState.annotation_id).where(AnnotationState.project_id == project_id)
        rows: list[dict[str, Any]] = [
            {"project_id": project_id, "annotation_id": id, "trained_until": said_at}
            for id, said_at in states.items()
        ]
        # A few at a time: clicks are written to the same database meanwhile.
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            with Session(self._engine) as session, session.begin():
                known = set(session.scalars(of_project))
                old = [row for row in part if row["annotation_id"] in known]
                if old:
                    session.execute(update(AnnotationState), old)
                # Of the others no webhook came and no comparison has been: either may still bring what they say.
                new = [row for row in part if row["annotation_id"] not in known]
                session.add_all(AnnotationState(**row, locked_at=now) for row in new)

    def absent(self, project_id: int, present: Collection[int], requested_at: float) -> None:
        """Takes annotations off that Label Studio's list of the whole project lacks, asked for at that time."""
        with Session(self._engine) as session, session.begin():
            clear_missing_masks(session, project_id, present, requested_at)
