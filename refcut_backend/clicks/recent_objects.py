"""The objects that were clicked lately, shared by all web processes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Engine, Row, bindparam, delete, select, update

from refcut_backend.clicks.session import ClickedObject, RememberedObject
from refcut_backend.database.engine import upsert
from refcut_backend.database.tables import ClickedObjectState as State
from refcut_backend.label_studio.prompts import PercentBox, PercentClick
from refcut_backend.label_studio.regions import GivenMask


def clicks_to_json(clicks: Sequence[PercentClick]) -> list[list[Any]]:
    """[id, x, y, positive] each, in percent."""
    return [[click.id, click.x_percent, click.y_percent, click.positive] for click in clicks]


def clicks_from_json(rows: Sequence[Sequence[Any]]) -> tuple[PercentClick, ...]:
    """What `clicks_to_json` made."""
    return tuple(PercentClick(x, y, positive, id) for id, x, y, positive in rows)


def box_to_json(box: PercentBox | None) -> list[Any] | None:
    """[id, left, top, right, bottom] in percent."""
    return None if box is None else [box.id, box.left, box.top, box.right, box.bottom]


def box_from_json(row: Sequence[Any] | None) -> PercentBox | None:
    """What `box_to_json` made."""
    if row is None:
        return None
    id, left, top, right, bottom = row
    return PercentBox(left, top, right, bottom, id)


_WITHOUT_MASK = (
    State.region_id,
    State.label,
    State.to_name,
    State.clicks,
    State.box,
    State.negative_label_clicks.label("negative_label_clicks"),
    State.single_prompt.label("single_prompt"),
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
    "context_key",
    "requested_at_s",
    "width",
    "height",
    "rle",
    "score",
    "reference_versions",
)
"""Of an object that is known; one that was accepted stays so."""


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
    """What ClickSession needs of earlier clicks. memory_s: how long an object is kept after its last click.

    Without the ORM, whose objects cost as much as the rest of the click's way through the web server; statements are made
    once.
    """

    def __init__(self, engine: Engine, memory_s: float) -> None:
        self._engine = engine
        self._memory_s = memory_s

    def recall(self, project_id: int, task_id: int, now_s: float) -> list[RememberedObject]:
        """The task's objects, newest first, without their masks."""
        wanted = {"project_id": project_id, "task_id": task_id, "since_s": now_s - self._memory_s}
        with self._engine.connect() as connection:
            return [_remembered(row) for row in connection.execute(_RECALL, wanted)]

    def mask(self, project_id: int, task_id: int, region_id: str) -> GivenMask | None:
        """The mask that was last given as this region; None when it is gone."""
        wanted = {"project_id": project_id, "task_id": task_id, "region_id": region_id}
        with self._engine.connect() as connection:
            row = connection.execute(_MASK, wanted).first()
        if row is None:
            return None
        return GivenMask(row.width, row.height, list(row.rle), row.score, tuple(row.reference_versions))

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
        """Stores what was answered, unless a newer click on the object was answered meanwhile; drops what is old."""
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
        """Marks objects whose regions have been seen in an annotation or a draft."""
        with self._engine.begin() as connection:
            connection.execute(
                update(State)
                .where(State.project_id == project_id, State.task_id == task_id)
                .where(State.region_id.in_(list(region_ids)))
                .values(accepted=True)
            )

    def forget(self, project_id: int, task_id: int) -> None:
        """Drops all objects of a task."""
        with self._engine.begin() as connection:
            connection.execute(delete(State).where(State.project_id == project_id, State.task_id == task_id))


def _remembered(row: Row[Any]) -> RememberedObject:
    clicked = ClickedObject(
        label=row.label,
        to_name=row.to_name,
        region_id=row.region_id,
        clicks=clicks_from_json(row.clicks),
        box=box_from_json(row.box),
        negative_label_clicks=frozenset(row.negative_label_clicks),
        single_prompt=row.single_prompt,
    )
    return RememberedObject(clicked, row.accepted, row.requested_at_s, row.context_key)


def newly_accepted(objects: Sequence[RememberedObject], seen_ids: Collection[str]) -> list[str]:
    """Ids of objects of which a region has been seen; a polygon's pieces have -2, -3, ... after the id."""
    seen = {_object_of(region_id) for region_id in seen_ids} | set(seen_ids)
    return [o.clicked.region_id for o in objects if not o.accepted and o.clicked.region_id in seen]


def _object_of(region_id: str) -> str:
    base, _, number = region_id.rpartition("-")
    return base if number.isdigit() else region_id
