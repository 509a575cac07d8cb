"""Every click that was answered, and whether its mask was accepted in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, delete, func, insert, select, update
from sqlalchemy.orm import Session

from refcut_backend.clicks.recent_objects import box_to_json, clicks_to_json
from refcut_backend.clicks.session import ClickedObject
from refcut_backend.database.tables import ClickEvent, ClickPolarity

IDS_A_QUERY = 1000


@dataclass(frozen=True)
class ClickCost:
    """How many prompts (clicks and boxes) accepted masks took. masks: how many were accepted."""

    label: str
    model_version: str
    masks: int
    clicks_per_mask: float


class ClickLog:
    """One row a click. Clicks never reach Label Studio's annotations (contract, section 3, rule 11)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(
        self,
        project_id: int,
        task_id: int,
        clicked: ClickedObject,
        *,
        model_version: str,
        reference_versions: Sequence[str],
        milliseconds: float,
    ) -> None:
        """An answered click."""
        event = {
            "project_id": project_id,
            "task_id": task_id,
            "label": clicked.label,
            "region_id": clicked.region_id,
            "clicks": clicks_to_json(clicked.clicks),
            "box": box_to_json(clicked.box),
            "model_version": model_version,
            "reference_versions": list(reference_versions),
            "milliseconds": milliseconds,
        }
        with self._engine.begin() as connection:
            connection.execute(insert(ClickEvent), event)

    def accept(self, project_id: int, region_ids: Collection[str]) -> None:
        """Regions that are in an annotation now; ids that are no answers of ours are ignored."""
        ids, now = list(region_ids), datetime.now(UTC)
        with Session(self._engine) as session, session.begin():
            for start in range(0, len(ids), IDS_A_QUERY):
                session.execute(
                    update(ClickEvent)
                    .where(ClickEvent.project_id == project_id, ClickEvent.accepted_at.is_(None))
                    .where(ClickEvent.region_id.in_(ids[start : start + IDS_A_QUERY]))
                    .values(accepted_at=now)
                )

    def last_clicks(self, project_id: int, task_id: int) -> dict[str, list[list[Any]]]:
        """Region id to the clicks of its last answer, [id, x, y, positive] in percent, accepted or not. Without what
        began with a box: that cannot be said in clicks alone."""
        query = (
            select(ClickEvent)
            .where(ClickEvent.project_id == project_id, ClickEvent.task_id == task_id)
            .order_by(ClickEvent.id)
        )
        with Session(self._engine) as session:
            last = {event.region_id: event for event in session.scalars(query)}
            return {region_id: event.clicks for region_id, event in last.items() if event.box is None}

    def clicks_per_mask(self, project_id: int) -> list[ClickCost]:
        """For each label and model version, by label and then version. A mask counts for the version that gave it last,
        with the clicks that it had then."""
        last = (
            select(func.max(ClickEvent.id))
            .where(ClickEvent.project_id == project_id, ClickEvent.accepted_at.is_not(None))
            .group_by(ClickEvent.task_id, ClickEvent.region_id)
        )
        query = select(ClickEvent).where(ClickEvent.id.in_(last))
        counts: dict[tuple[str, str], list[int]] = {}
        with Session(self._engine) as session:
            for event in session.scalars(query):
                prompts = len(event.clicks) + (event.box is not None)
                counts.setdefault((event.label, event.model_version), []).append(prompts)
        return [
            ClickCost(label, version, len(prompts), sum(prompts) / len(prompts))
            for (label, version), prompts in sorted(counts.items())
        ]


LOOK_EVERY_S = 3600.0


class OldClicks:
    """Of all projects. kept_days: 0 = clicks are kept for ever."""

    def __init__(self, engine: Engine, kept_days: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._kept_days = kept_days
        self._clock = clock
        self._look_at = clock()

    def drop(self) -> None:
        """Looks once an hour, however often it is called."""
        if not self._kept_days or self._clock() < self._look_at:
            return
        self._look_at = self._clock() + LOOK_EVERY_S
        now = datetime.now(UTC)
        oldest = now - timedelta(days=self._kept_days)
        with Session(self._engine) as session, session.begin():
            session.execute(delete(ClickEvent).where(ClickEvent.answered_at < oldest))
            session.execute(delete(ClickPolarity).where(ClickPolarity.recorded_at < oldest))
            # Of an earlier version of this program: they age from now on.
            session.execute(
                update(ClickPolarity).where(ClickPolarity.recorded_at.is_(None)).values(recorded_at=now)
            )
