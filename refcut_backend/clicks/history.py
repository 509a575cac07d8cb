"""What is stored about clicks: polarities, recent objects and the click log, behind one class that never fails a click.

If the database cannot be read, the click is answered without its history; if it cannot be written, that is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from refcut_backend.clicks.context import REGION_ID_PREFIX, ClickContext
from refcut_backend.clicks.forgotten_masks import ForgottenMasks
from refcut_backend.clicks.log import ClickLog
from refcut_backend.clicks.recent_objects import ClickedObjects, deleted_objects, newly_accepted
from refcut_backend.clicks.session import ClickedObject, ClickSession, RememberedObject
from refcut_backend.database.click_tables import ClickPolarity
from refcut_backend.database.engine import upsert
from refcut_backend.errors import BadMaskError
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.payloads import AnnotationPayload
from refcut_backend.label_studio.prompts import Dot, to_pixel
from refcut_backend.label_studio.regions import GivenMask

log = logging.getLogger("refcut.click_memory")

LOCK_TIMEOUT_MS = 250
"""Lock timeout for click history. On timeout the click is answered without its history."""
ANSWER_TIMEOUT_S = 2.0
"""Longest time for a statement of the click history."""


class ClickPolarities:
    """Remembers by id whether a dot is positive.

    Label Studio forgets that when its page is loaded again; the ids survive (contract, section 3, rule 9).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def resolve(self, project_id: int, dots: Sequence[Dot]) -> dict[str, bool]:
        """Store the polarity of dots that have one, and look up the others.

        Returns:
            Dot id to whether it is positive, for the dots without a polarity that are known.
        """
        polarities = {dot.id: dot.positive for dot in dots if dot.positive is not None}
        without = [dot.id for dot in dots if dot.positive is None]
        if polarities:
            self._remember(project_id, polarities)
        return self._known(project_id, without) if without else {}

    def _known(self, project_id: int, ids: Sequence[str]) -> dict[str, bool]:
        query = select(ClickPolarity.click_id, ClickPolarity.positive).where(
            ClickPolarity.project_id == project_id, ClickPolarity.click_id.in_(ids)
        )
        with self._engine.connect() as connection:
            return {click_id: positive for click_id, positive in connection.execute(query)}

    def _remember(self, project_id: int, polarities: dict[str, bool]) -> None:
        # Always in the same order: two transactions that lock the same rows in opposite orders would deadlock.
        rows = [
            {"project_id": project_id, "click_id": click_id, "positive": polarities[click_id]}
            for click_id in sorted(polarities)
        ]
        with self._engine.begin() as connection:
            connection.execute(upsert(self._engine, ClickPolarity, ["positive"]), rows)


@dataclass(frozen=True)
class ClickKey:
    """Identifies a click request in the history.

    Attributes:
        project_id: Label Studio's project.
        task_id: Label Studio's task.
        context: Dots or boxes of the clicked label.
        at_s: When the request came in, seconds since 1970.
    """

    project_id: int
    task_id: int
    context: ClickContext
    at_s: float


class ClickHistory:
    """Polarities, recent objects and the click log, in the SQL database that all web processes share.

    Args:
        engine: The database, with a short lock timeout (`LOCK_TIMEOUT_MS`).
        memory_s: Seconds for which an object is kept after its last click.
    """

    def __init__(self, engine: Engine, memory_s: float) -> None:
        self._polarities = ClickPolarities(engine)
        self._objects = ClickedObjects(engine, memory_s)
        self._log = ClickLog(engine)
        self._forgotten = ForgottenMasks(engine)
        self._memory_s = memory_s

    def session(self, key: ClickKey, seen_ids: Collection[str] | None) -> ClickSession:
        """Read the history of a click's task, and mark objects whose regions have been seen as accepted.

        Accepted objects whose regions are gone were deleted: they are dropped, so that a click where they were begins a
        new object.

        Args:
            key: The click.
            seen_ids: Ids of the regions that are in an annotation or a draft; None if that is not known.
        """
        polarities: dict[str, bool] = {}
        objects: Sequence[RememberedObject] = ()
        with _forgiving("polarities"):
            polarities = self._polarities.resolve(key.project_id, key.context.dots)
        with _forgiving("earlier clicks"):
            objects = self._objects.recall(key.project_id, key.task_id, key.at_s)
            accepted, deleted = newly_accepted(objects, seen_ids or ()), deleted_objects(objects, seen_ids)
            if accepted:
                self._objects.accept(key.project_id, key.task_id, accepted)
            if deleted:
                self._objects.drop(key.project_id, key.task_id, deleted)
            if accepted or deleted:
                objects = self._objects.recall(key.project_id, key.task_id, key.at_s)

        def on_mask(region_id: str, x_percent: float, y_percent: float) -> bool:
            given = self.mask(key, region_id)
            return given is not None and _covers(given, x_percent, y_percent)

        return ClickSession(objects, polarities, on_mask)

    def mask(self, key: ClickKey, region_id: str) -> GivenMask | None:
        """Return the latest mask of a region of the click's task; None if it is gone."""
        with _forgiving("an earlier mask"):
            return self._objects.mask(key.project_id, key.task_id, region_id)
        return None

    def record(
        self,
        key: ClickKey,
        clicked: ClickedObject,
        given: GivenMask,
        *,
        model_version: str,
        milliseconds: float,
    ) -> None:
        """Store an answered click. An empty mask is logged, but further clicks do not refine it.

        Args:
            key: The click.
            clicked: The object that it was about.
            given: The mask that was returned.
            model_version: What computed the mask.
            milliseconds: Time from request to answer.
        """
        if given.rle:
            with _forgiving("masks without a tick"):
                self._forgotten.keep_older(key.at_s - self._memory_s)
            with _forgiving("a click"):
                self._objects.remember(
                    key.project_id,
                    key.task_id,
                    clicked,
                    given,
                    context_key=key.context.key(),
                    requested_at_s=key.at_s,
                )
        with _forgiving("the click log"):
            self._log.add(
                key.project_id,
                key.task_id,
                clicked,
                model_version=model_version,
                reference_versions=given.reference_versions,
                milliseconds=milliseconds,
            )

    def forget(self, project_id: int, task_id: int) -> None:
        """Drop a task's objects, after its annotation was submitted. Masks that were not accepted are kept elsewhere."""
        with _forgiving("a submit"):
            self._forgotten.keep(project_id, task_id)
            self._objects.forget(project_id, task_id)

    def follow(self, project_id: int, task_id: int, annotation: AnnotationPayload) -> None:
        """Note which masks an annotation has, and which it lacks although it has their dots."""
        with _forgiving("masks without a tick"):
            missing = self._forgotten.follow(project_id, task_id, annotation)
            if missing:
                log.warning(
                    "an annotation was submitted with dots and without their masks: the tick was forgotten",
                    extra={
                        "project": project_id,
                        "task": task_id,
                        "annotation": annotation.id,
                        "labels": missing,
                    },
                )

    def follow_removal(self, project_id: int, annotation_ids: Collection[int]) -> None:
        """Note that annotations were deleted."""
        with _forgiving("masks without a tick"):
            self._forgotten.follow_removal(project_id, annotation_ids)

    def mark_accepted(self, project_id: int, region_ids: Collection[str]) -> None:
        """Note in the click log that an annotation has these regions now."""
        with _forgiving("accepted masks"):
            ours = [region_id for region_id in region_ids if region_id.startswith(REGION_ID_PREFIX)]
            self._log.accept(project_id, ours)


@contextmanager
def _forgiving(subject: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, ValueError, OverflowError) as error:
        # A driver also raises plain errors, for text or numbers that it cannot store.
        cause = error.orig if isinstance(error, DBAPIError) else type(error).__name__
        log.warning("the database refused", extra={"subject": subject, "problem": str(cause)})


def _covers(given: GivenMask, x_percent: float, y_percent: float) -> bool:
    row, col = int(to_pixel(y_percent, given.height)), int(to_pixel(x_percent, given.width))
    try:
        return brush_rle.is_set(given.rle, given.height, given.width, row, col)
    except BadMaskError:
        return False
