"""The objects that were clicked lately, shared by all web processes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, undefer

from refcut_backend.core.click_session import ClickedObject, RememberedObject
from refcut_backend.core.regions import GivenMask
from refcut_backend.store.prompts_json import box_from_json, box_to_json, clicks_from_json, clicks_to_json
from refcut_backend.store.tables import ClickedObjectState as State


class ClickedObjects:
    """What ClickSession needs of earlier clicks. memory_s: how long an object is kept after its last click."""

    def __init__(self, engine: Engine, memory_s: float) -> None:
        self._engine = engine
        self._memory_s = memory_s

    def recall(self, project_id: int, task_id: int, now_s: float) -> list[RememberedObject]:
        """The task's objects, newest first, without their masks."""
        query = (
            select(State)
            .where(State.project_id == project_id, State.task_id == task_id)
            .where(State.asked_at_s >= now_s - self._memory_s)
            .order_by(State.asked_at_s.desc(), State.region_id)
        )
        with Session(self._engine) as session:
            return [_remembered(row) for row in session.scalars(query)]

    def mask(self, project_id: int, task_id: int, region_id: str) -> GivenMask | None:
        """The mask that was last given as this region; None when it is gone."""
        with Session(self._engine) as session:
            row = session.get(State, (project_id, task_id, region_id), options=[undefer(State.rle)])
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
        asked: str,
        asked_at_s: float,
    ) -> None:
        """Stores what was answered, unless a newer click on the object was answered meanwhile; drops what is old."""
        try:
            self._write(project_id, task_id, clicked, given, asked, asked_at_s)
        except IntegrityError:
            # Two clicks on a new object at once: the other one has just been stored.
            self._write(project_id, task_id, clicked, given, asked, asked_at_s)

    def _write(
        self,
        project_id: int,
        task_id: int,
        clicked: ClickedObject,
        given: GivenMask,
        asked: str,
        asked_at_s: float,
    ) -> None:
        with Session(self._engine) as session, session.begin():
            session.execute(delete(State).where(State.asked_at_s < asked_at_s - self._memory_s))
            row = session.get(State, (project_id, task_id, clicked.region_id), with_for_update=True)
            if row is None:
                row = State(
                    project_id=project_id, task_id=task_id, region_id=clicked.region_id, accepted=False
                )
                session.add(row)
            elif row.asked_at_s > asked_at_s:
                return
            row.label, row.to_name, row.lone = clicked.label, clicked.to_name, clicked.lone
            row.clicks, row.box = clicks_to_json(clicked.clicks), box_to_json(clicked.box)
            row.borrowed = sorted(clicked.borrowed)
            row.asked, row.asked_at_s = asked, asked_at_s
            row.width, row.height, row.rle = given.width, given.height, bytes(given.rle)
            row.score, row.reference_versions = given.score, list(given.reference_versions)

    def accept(self, project_id: int, task_id: int, region_ids: Collection[str]) -> None:
        """Marks objects whose regions have been seen in an annotation or a draft."""
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(State)
                .where(State.project_id == project_id, State.task_id == task_id)
                .where(State.region_id.in_(list(region_ids)))
                .values(accepted=True)
            )

    def forget(self, project_id: int, task_id: int) -> None:
        """Drops all objects of a task."""
        with Session(self._engine) as session, session.begin():
            session.execute(delete(State).where(State.project_id == project_id, State.task_id == task_id))


def _remembered(row: State) -> RememberedObject:
    clicked = ClickedObject(
        label=row.label,
        to_name=row.to_name,
        region_id=row.region_id,
        clicks=clicks_from_json(row.clicks),
        box=box_from_json(row.box),
        borrowed=frozenset(row.borrowed),
        lone=row.lone,
    )
    return RememberedObject(clicked, row.accepted, row.asked_at_s, row.asked)


def newly_accepted(objects: Sequence[RememberedObject], seen_ids: Collection[str]) -> list[str]:
    """Ids of objects of which a region has been seen; a polygon's pieces have -2, -3, ... after the id."""
    seen = {_object_of(region_id) for region_id in seen_ids} | set(seen_ids)
    return [o.clicked.region_id for o in objects if not o.accepted and o.clicked.region_id in seen]


def _object_of(region_id: str) -> str:
    base, _, number = region_id.rpartition("-")
    return base if number.isdigit() else region_id
