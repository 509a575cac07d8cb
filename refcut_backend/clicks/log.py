"""The click log: one row per answered click, and whether its mask was accepted. Old rows are dropped after some days."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Text, cast, delete, func, insert, select, update
from sqlalchemy.orm import Session

from refcut_backend.clicks.recent_objects import box_to_json, clicks_to_json
from refcut_backend.clicks.session import ClickedObject
from refcut_backend.database.click_tables import ClickEvent, ClickPolarity

IDS_PER_QUERY = 1000
LAST_CLICKS = 500
"""Newest clicks of a project among which `ClickLog.last_labels` looks, so that it takes the same time for any log."""
USES_DAYS = 30
"""Uses of references are counted over this time."""
CHECK_EVERY_S = 3600.0
"""How often old clicks are dropped."""


@dataclass(frozen=True)
class ClickCost:
    """How many prompts (clicks and boxes) the accepted masks of a label took.

    Attributes:
        label: The label.
        model_version: What computed the masks.
        masks: Number of accepted masks.
        clicks_per_mask: Mean number of prompts per accepted mask.
    """

    label: str
    model_version: str
    masks: int
    clicks_per_mask: float


class ClickLog:
    """One row per answered click. Clicks never reach Label Studio's annotations (contract, section 3, rule 11)."""

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
        """Add an answered click.

        Args:
            project_id: Label Studio's project.
            task_id: Label Studio's task.
            clicked: The object with all of its clicks.
            model_version: What computed the mask.
            reference_versions: Versions of the references that were used.
            milliseconds: Time from request to answer.
        """
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
        """Mark regions that are in an annotation now as accepted. Ids that are not in the log are ignored."""
        ids, now = list(region_ids), datetime.now(UTC)
        with Session(self._engine) as session, session.begin():
            for start in range(0, len(ids), IDS_PER_QUERY):
                session.execute(
                    update(ClickEvent)
                    .where(ClickEvent.project_id == project_id, ClickEvent.accepted_at.is_(None))
                    .where(ClickEvent.region_id.in_(ids[start : start + IDS_PER_QUERY]))
                    .values(accepted_at=now)
                )

    def last_clicks(
        self, project_id: int, task_ids: Collection[int]
    ) -> dict[int, dict[str, list[list[Any]]]]:
        """Return the clicks of each region's last answer, accepted or not, for tasks with logged clicks.

        Objects that began with a box are left out: clicks alone do not describe them.

        Args:
            project_id: Label Studio's project.
            task_ids: Label Studio's tasks.

        Returns:
            Task id to region id to a list of [id, x, y, positive], in percent of the image's size.
        """
        ids, found = sorted(task_ids), dict[int, dict[str, list[list[Any]]]]()
        with self._engine.connect() as connection:
            for start in range(0, len(ids), IDS_PER_QUERY):
                last = (
                    select(func.max(ClickEvent.id))
                    .where(ClickEvent.project_id == project_id)
                    .where(ClickEvent.task_id.in_(ids[start : start + IDS_PER_QUERY]))
                    .group_by(ClickEvent.task_id, ClickEvent.region_id)
                )
                query = select(
                    ClickEvent.task_id, ClickEvent.region_id, ClickEvent.clicks, ClickEvent.box
                ).where(ClickEvent.id.in_(last))
                for event in connection.execute(query):
                    if event.box is None:
                        found.setdefault(event.task_id, {})[event.region_id] = event.clicks
        return found

    def last_labels(self, project_id: int) -> list[str]:
        """Return the labels of a project that were clicked lately, the last one first."""
        lately = (
            select(ClickEvent.id, ClickEvent.label)
            .where(ClickEvent.project_id == project_id)
            .order_by(ClickEvent.id.desc())
            .limit(LAST_CLICKS)
            .subquery()
        )
        query = select(lately.c.label).group_by(lately.c.label).order_by(func.max(lately.c.id).desc())
        with self._engine.connect() as connection:
            return list(connection.scalars(query))

    def reference_uses(self, project_id: int, days: int = USES_DAYS) -> dict[str, int]:
        """Count the clicks of the last days that used each version of a reference."""
        # As text, because PostgreSQL compares no JSON.
        versions = cast(ClickEvent.reference_versions, Text)
        query = (
            select(versions, func.count())
            .where(ClickEvent.project_id == project_id)
            .where(ClickEvent.answered_at > datetime.now(UTC) - timedelta(days=days))
            .group_by(versions)
        )
        uses: dict[str, int] = {}
        with Session(self._engine) as session:
            for text, clicks in session.execute(query):
                for version in set(json.loads(text)):
                    uses[version] = uses.get(version, 0) + clicks
        return uses

    def clicks_per_mask(self, project_id: int) -> list[ClickCost]:
        """Count the prompts of accepted masks, for each label and model version, sorted by both.

        A mask counts for the version that computed it last, with the prompts that it had then.
        """
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


class OldClicks:
    """Drops old clicks and polarities of all projects.

    Args:
        engine: The database.
        keep_days: Age in days at which they are dropped; 0 keeps them for ever.
        clock: Monotonic seconds.
    """

    def __init__(self, engine: Engine, keep_days: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._keep_days = keep_days
        self._clock = clock
        self._next_check = clock()

    def drop(self) -> None:
        """Drop what is too old. Does so at most once per hour, however often it is called."""
        if not self._keep_days or self._clock() < self._next_check:
            return
        self._next_check = self._clock() + CHECK_EVERY_S
        now = datetime.now(UTC)
        oldest = now - timedelta(days=self._keep_days)
        with Session(self._engine) as session, session.begin():
            session.execute(delete(ClickEvent).where(ClickEvent.answered_at < oldest))
            session.execute(delete(ClickPolarity).where(ClickPolarity.recorded_at < oldest))
            # Rows of an earlier version of this program have no time: they age from now on.
            session.execute(
                update(ClickPolarity).where(ClickPolarity.recorded_at.is_(None)).values(recorded_at=now)
            )
