"""Removes clicks that are so old that neither a training nor a count nor a reloaded page will ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, delete, update
from sqlalchemy.orm import Session

from refcut_backend.database.tables import ClickEvent, ClickPolarity

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
            session.execute(delete(ClickPolarity).where(ClickPolarity.said_at < oldest))
            # Of an earlier version of this program: they age from now on.
            session.execute(update(ClickPolarity).where(ClickPolarity.said_at.is_(None)).values(said_at=now))
