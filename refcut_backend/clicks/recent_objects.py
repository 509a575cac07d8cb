"""Table of the objects that were clicked lately, shared by all web processes, and its JSON for clicks and boxes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Engine, Row, bindparam, delete, select, update

from refcut_backend.clicks.session import ClickedObject, RememberedObject
from refcut_backend.database.click_tables import ClickedObjectState as State
from refcut_backend.database.engine import upsert
from refcut_backend.label_studio.prompts import PercentBox, PercentClick
from refcut_backend.label_studio.regions import GivenMask


def clicks_to_json(clicks: Sequence[PercentClick]) -> list[list[Any]]:
    """Convert clicks to lists of [id, x, y, positive], in percent of the image's size."""
    return [[click.id, click.x_percent, click.y_percent, click.positive] for click in clicks]


def clicks_from_json(rows: Sequence[Sequence[Any]]) -> tuple[PercentClick, ...]:
    """Read what `clicks_to_json` made."""
    return tuple(PercentClick(x, y, positive, click_id) for click_id, x, y, positive in rows)


def box_to_json(box: PercentBox | None) -> list[Any] | None:
    """Convert a box to [id, left, top, right, bottom], in percent of the image's size."""
    return None if box is None else [box.id, box.left, box.top, box.right, box.bottom]


def box_from_json(row: Sequence[Any] | None) -> PercentBox | None:
    """Read what `box_to_json` made."""
    if row is None:
        return None
    box_id, left, top, right, bottom = row
    return PercentBox(left, top, right, bottom, box_id)


_WITHOUT_MASK = (
    State.region_id,
    State.label,
    State.to_name,
    State.clicks,
    State.box,
    State.negative_label_clicks.label("negative_label_clicks"),
    State.single_prompt.label("single_prompt"),
    State.extent,
    State.step_dots,
    State.accepted,
    State.requested_at_s.label("requested_at_s"),
    State.context_key.label("context_key"),
)
_REPLACED = (
    "label",
    "to_name",
    "clicks",
    "box",
    "negative_label_clicks",
    "single_prompt",
    "extent",
    "step_dots",
    "context_key",
    "requested_at_s",
    "width",
    "height",
    "rle",
    "score",
    "reference_versions",
)
"""Columns that a further click replaces. `accepted` is not among them: an accepted object stays accepted."""

_RECALL = (
    select(*_WITHOUT_MASK)
    .where(State.project_id == bindparam("project_id"), State.task_id == bindparam("task_id"))
    .where(State.requested_at_s >= bindparam("since_s"))
    .order_by(State.requested_at_s.desc(), State.region_id)
)
_MASK = select(State.width, State.height, State.rle, State.score, State.reference_versions).where(
    State.project_id == bindparam("project_id"),
    State.task_id == bindparam("task_id"),
    State.region_id == bindparam("region_id"),
)
_DROP_OLD = delete(State).where(State.requested_at_s < bindparam("before_s"))


class ClickedObjects:
    """Objects that were clicked lately, for `ClickSession`.

    It uses SQLAlchemy's core and statements that are built once. ORM objects cost as much time as all the rest of a
    click in the web process.

    Args:
        engine: The database.
        memory_s: Seconds for which an object is kept after its last click.
    """

    def __init__(self, engine: Engine, memory_s: float) -> None:
        self._engine = engine
        self._memory_s = memory_s

    def recall(self, project_id: int, task_id: int, now_s: float) -> list[RememberedObject]:
        """Return the task's objects, newest first, without their masks."""
        wanted = {"project_id": project_id, "task_id": task_id, "since_s": now_s - self._memory_s}
        with self._engine.connect() as connection:
            return [_remembered(row) for row in connection.execute(_RECALL, wanted)]

    def mask(self, project_id: int, task_id: int, region_id: str) -> GivenMask | None:
        """Return the latest mask of a region; None if it is gone."""
        wanted = {"project_id": project_id, "task_id": task_id, "region_id": region_id}
        with self._engine.connect() as connection:
            return given_mask(connection.execute(_MASK, wanted).first())

    def remember(
        self,
        project_id: int,
        task_id: int,
        clicked: ClickedObject,
        given: GivenMask,
        *,
        context_key: str,
        requested_at_s: float,
    ) -> None:
        """Store an answered object, unless a newer click on it was answered meanwhile. Drop what is too old.

        Args:
            project_id: Label Studio's project.
            task_id: Label Studio's task.
            clicked: The object.
            given: The mask that was returned.
            context_key: Key of the context that was answered.
            requested_at_s: When that context came in, seconds since 1970.
        """
        row = {
            "project_id": project_id,
            "task_id": task_id,
            "region_id": clicked.region_id,
            "label": clicked.label,
            "to_name": clicked.to_name,
            "clicks": clicks_to_json(clicked.clicks),
            "box": box_to_json(clicked.box),
            "negative_label_clicks": sorted(clicked.negative_label_clicks),
            "single_prompt": clicked.single_prompt,
            "extent": clicked.extent,
            "step_dots": sorted(clicked.step_dots),
            "accepted": False,
            "context_key": context_key,
            "requested_at_s": requested_at_s,
            "width": given.width,
            "height": given.height,
            "rle": bytes(given.rle),
            "score": given.score,
            "reference_versions": list(given.reference_versions),
        }
        with self._engine.begin() as connection:
            connection.execute(_DROP_OLD, {"before_s": requested_at_s - self._memory_s})
            connection.execute(upsert(self._engine, State, _REPLACED, newest_by="requested_at_s"), row)

    def accept(self, project_id: int, task_id: int, region_ids: Collection[str]) -> None:
        """Mark objects whose regions have been seen in an annotation or a draft."""
        with self._engine.begin() as connection:
            connection.execute(
                update(State)
                .where(State.project_id == project_id, State.task_id == task_id)
                .where(State.region_id.in_(list(region_ids)))
                .values(accepted=True)
            )

    def drop(self, project_id: int, task_id: int, region_ids: Collection[str]) -> None:
        """Drop objects of a task."""
        with self._engine.begin() as connection:
            connection.execute(
                delete(State)
                .where(State.project_id == project_id, State.task_id == task_id)
                .where(State.region_id.in_(list(region_ids)))
            )

    def forget(self, project_id: int, task_id: int) -> None:
        """Drop all objects of a task."""
        with self._engine.begin() as connection:
            connection.execute(delete(State).where(State.project_id == project_id, State.task_id == task_id))


def given_mask(row: Row[*tuple[Any, ...]] | None) -> GivenMask | None:
    """Read the columns of a mask; None without a row."""
    if row is None:
        return None
    return GivenMask(row.width, row.height, list(row.rle), row.score, tuple(row.reference_versions))


def _remembered(row: Row[Any]) -> RememberedObject:
    clicked = ClickedObject(
        label=row.label,
        to_name=row.to_name,
        region_id=row.region_id,
        clicks=clicks_from_json(row.clicks),
        box=box_from_json(row.box),
        negative_label_clicks=frozenset(row.negative_label_clicks),
        single_prompt=row.single_prompt,
        extent=row.extent or 0,
        step_dots=frozenset(row.step_dots or ()),
    )
    return RememberedObject(clicked, row.accepted, row.requested_at_s, row.context_key)


def newly_accepted(objects: Sequence[RememberedObject], seen_ids: Collection[str]) -> list[str]:
    """Find objects that were not accepted before and of which a region has been seen.

    Args:
        objects: The task's objects.
        seen_ids: Ids of the regions in its annotations and drafts.

    Returns:
        Region ids of the objects.
    """
    seen = with_objects(seen_ids)
    return [o.clicked.region_id for o in objects if not o.accepted and o.clicked.region_id in seen]


def deleted_objects(objects: Sequence[RememberedObject], seen_ids: Collection[str] | None) -> list[str]:
    """Find objects that were accepted before and of which no region is left.

    Args:
        objects: The task's objects.
        seen_ids: Ids of the regions in its annotations and drafts; None if they are not known.

    Returns:
        Region ids of the objects.
    """
    if seen_ids is None:
        return []
    seen = with_objects(seen_ids)
    return [o.clicked.region_id for o in objects if o.accepted and o.clicked.region_id not in seen]


def with_objects(region_ids: Iterable[str]) -> set[str]:
    """Return region ids, and for each piece of a mask (-2, -3, ... after the id) also the id of its object."""
    found = set()
    for region_id in region_ids:
        base, _, number = region_id.rpartition("-")
        found |= {region_id, base} if number.isdigit() else {region_id}
    return found
