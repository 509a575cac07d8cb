"""What is known of earlier clicks. Never fails a click: what cannot be read counts as unknown, what cannot be written is
logged."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from refcut_backend.clicks.context import REGION_ID_PREFIX, ClickContext
from refcut_backend.clicks.log import ClickCost, ClickLog
from refcut_backend.clicks.recent_objects import ClickedObjects, newly_accepted
from refcut_backend.clicks.session import ClickedObject, ClickSession, RememberedObject
from refcut_backend.database.engine import upsert
from refcut_backend.database.tables import ClickPolarity
from refcut_backend.errors import BadMaskError
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.prompts import Dot, to_pixel
from refcut_backend.label_studio.regions import GivenMask


class ClickPolarities:
    """Label Studio forgets them when its page is loaded again (contract, section 3, rule 9); ids survive."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def resolve(self, project_id: int, dots: Sequence[Dot]) -> dict[str, bool]:
        """Remembers what dots say; returns by id what is known of those that say nothing."""
        said = {dot.id: dot.positive for dot in dots if dot.positive is not None}
        silent = [dot.id for dot in dots if dot.positive is None]
        if said:
            self._remember(project_id, said)
        return self._known(project_id, silent) if silent else {}

    def _known(self, project_id: int, ids: Sequence[str]) -> dict[str, bool]:
        query = select(ClickPolarity.click_id, ClickPolarity.positive).where(
            ClickPolarity.project_id == project_id, ClickPolarity.click_id.in_(ids)
        )
        with self._engine.connect() as connection:
            return {id: positive for id, positive in connection.execute(query)}

    def _remember(self, project_id: int, said: dict[str, bool]) -> None:
        # In one order always: PostgreSQL lets nobody wait in a circle for rows that others have just written.
        rows = [{"project_id": project_id, "click_id": id, "positive": said[id]} for id in sorted(said)]
        with self._engine.begin() as connection:
            connection.execute(upsert(self._engine, ClickPolarity, ["positive"]), rows)


log = logging.getLogger("refcut.click_memory")

LOCK_TIMEOUT_MS = 250
"""A click rather goes without its memory than waits longer for another process that is writing."""


@dataclass(frozen=True)
class ClickKey:
    """A click request as far as memory is concerned. at_s: when it came, seconds since 1970."""

    project_id: int
    task_id: int
    context: ClickContext
    at_s: float


class ClickMemory:
    """Polarities, objects and the log of clicks, in the SQL database that all web processes share."""

    def __init__(self, engine: Engine, memory_s: float) -> None:
        self._polarities = ClickPolarities(engine)
        self._objects = ClickedObjects(engine, memory_s)
        self._log = ClickLog(engine)

    def session(self, asked: ClickKey, seen_ids: Collection[str]) -> ClickSession:
        """What ClickSession needs to understand a click. seen_ids: regions that are in an annotation or a draft."""
        polarities: dict[str, bool] = {}
        objects: Sequence[RememberedObject] = ()
        with _forgiving("polarities"):
            polarities = self._polarities.resolve(asked.project_id, asked.context.dots)
        with _forgiving("earlier clicks"):
            objects = self._objects.recall(asked.project_id, asked.task_id, asked.at_s)
            accepted = newly_accepted(objects, seen_ids)
            if accepted:
                self._objects.accept(asked.project_id, asked.task_id, accepted)
                objects = self._objects.recall(asked.project_id, asked.task_id, asked.at_s)

        def on_mask(region_id: str, x_percent: float, y_percent: float) -> bool:
            given = self.mask(asked, region_id)
            return given is not None and _covers(given, x_percent, y_percent)

        return ClickSession(objects, polarities, on_mask)

    def mask(self, asked: ClickKey, region_id: str) -> GivenMask | None:
        """The mask that was last given as this region; None when it is gone."""
        with _forgiving("an earlier mask"):
            return self._objects.mask(asked.project_id, asked.task_id, region_id)
        return None

    def answered(
        self,
        asked: ClickKey,
        clicked: ClickedObject,
        given: GivenMask,
        *,
        model_version: str,
        milliseconds: float,
    ) -> None:
        """Remembers a click with its answer. An empty mask is logged, but nothing goes on from it."""
        if given.rle:
            with _forgiving("a click"):
                self._objects.remember(
                    asked.project_id,
                    asked.task_id,
                    clicked,
                    given,
                    context_key=asked.context.key(),
                    requested_at_s=asked.at_s,
                )
        with _forgiving("the click log"):
            self._log.add(
                asked.project_id,
                asked.task_id,
                clicked,
                model_version=model_version,
                reference_versions=given.reference_versions,
                milliseconds=milliseconds,
            )

    def forget(self, project_id: int, task_id: int) -> None:
        """Drops a task's objects: the annotation was submitted."""
        with _forgiving("a submit"):
            self._objects.forget(project_id, task_id)

    def submitted(self, project_id: int, region_ids: Collection[str]) -> None:
        """An annotation has these regions now."""
        with _forgiving("accepted masks"):
            self._log.accept(project_id, [id for id in region_ids if id.startswith(REGION_ID_PREFIX)])

    def clicks_per_mask(self, project_id: int) -> list[ClickCost]:
        """What accepted masks cost, for each label and model version."""
        return self._log.clicks_per_mask(project_id)


@contextmanager
def _forgiving(subject: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, ValueError, OverflowError) as error:
        # Besides its own errors a driver raises plain ones for text or numbers that it cannot store.
        cause = error.orig if isinstance(error, DBAPIError) else type(error).__name__
        log.warning("the database refused", extra={"subject": subject, "problem": str(cause)})


def _covers(given: GivenMask, x_percent: float, y_percent: float) -> bool:
    row, col = int(to_pixel(y_percent, given.height)), int(to_pixel(x_percent, given.width))
    try:
        return brush_rle.is_set(given.rle, given.height, given.width, row, col)
    except BadMaskError:
        return False
