"""Masks whose tick was forgotten: an annotation was submitted with an object's dots, but without its mask.

Label Studio shows an answer as a suggestion, and stores it only once it was accepted with the tick. Who submits without
the tick stores the dots alone (contract, section 3, rule 10). So the masks of objects that were not accepted are kept
when the click history drops the objects:

    clicked_objects --keep: task submitted, or object too old--> unaccepted_masks
    webhook with the region          the mask was accepted: it is dropped
    webhook with the dots alone      the tick was forgotten: the mask is marked with the annotation
    webhook without both             nothing: the mask may have been rejected
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, delete, exists, func, literal, select, update

from refcut_backend.clicks.recent_objects import given_mask, with_objects
from refcut_backend.database.click_tables import ClickedObjectState as State
from refcut_backend.database.click_tables import UnacceptedMask
from refcut_backend.database.engine import upsert
from refcut_backend.errors import BadMaskError
from refcut_backend.label_studio.payloads import AnnotationPayload
from refcut_backend.label_studio.regions import REGION_KINDS, GivenMask, check_result

KEPT_S = 30 * 24 * 3600.0
"""Age at which an unaccepted mask is dropped."""
_KEY = [column.key for column in UnacceptedMask.__table__.primary_key]
_COPIED = [
    column.key for column in UnacceptedMask.__table__.columns if column.key not in (*_KEY, "annotation_id")
]
"""What a kept mask takes over from the clicked object, whose columns have the same names."""


@dataclass(frozen=True)
class KeptMask:
    """A mask that was answered and not accepted, as far as is known.

    Attributes:
        task_id: Its task.
        region_id: Id of its region in the answer.
        label: Its label.
        to_name: Name of the image.
        prompt_ids: Ids of the dots and the box that it was made from, and of the dots that stepped it.
        annotation_id: Annotation that has its dots and not its mask; None if no webhook said so.
    """

    task_id: int
    region_id: str
    label: str
    to_name: str
    prompt_ids: frozenset[str]
    annotation_id: int | None

    def is_forgotten_in(self, result: Sequence[dict[str, Any]]) -> bool:
        """Whether an annotation's `result` has a prompt of the mask, and not the mask itself."""
        return bool(self.prompt_ids & prompt_ids(result)) and self.region_id not in mask_ids(result)


def prompt_ids(result: Sequence[dict[str, Any]]) -> set[str]:
    """Returns the ids of the dots and rectangles in an annotation's `result`."""
    kinds = ("keypointlabels", "rectanglelabels")
    return {str(item.get("id")) for item in result if item.get("type") in kinds}


def mask_ids(result: Sequence[dict[str, Any]]) -> set[str]:
    """Returns the ids of the masks in an annotation's `result`; for the piece of a mask also the id of the whole."""
    return with_objects(str(item.get("id")) for item in result if item.get("type") in REGION_KINDS)


class ForgottenMasks:
    """The masks that were not accepted, of all projects."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, project_id: int, task_id: int) -> None:
        """Keeps the masks of a task's objects that were not accepted, before the objects are dropped."""
        self._keep(and_(State.project_id == project_id, State.task_id == task_id))

    def keep_older(self, before_s: float) -> None:
        """Keeps those of objects that were clicked last before a time (seconds since 1970); drops what is too old."""
        is_older = State.requested_at_s < before_s
        with self._engine.connect() as connection:
            if not connection.scalar(select(exists().where(is_older))):
                return  # as for almost every click: nothing is written
        self._keep(is_older)
        with self._engine.begin() as connection:
            connection.execute(
                delete(UnacceptedMask).where(UnacceptedMask.requested_at_s < before_s - KEPT_S)
            )

    def follow(self, project_id: int, task_id: int, annotation: AnnotationPayload) -> list[str]:
        """Applies a webhook about an annotation.

        Returns:
            Labels of the masks that the annotation lacks although it has their dots.
        """
        try:
            check_result(annotation.result)
        except BadMaskError:
            return []
        accepted = mask_ids(annotation.result)
        self._drop(project_id, task_id, accepted)
        if not prompt_ids(annotation.result):
            self._mark(project_id, task_id, annotation.id, ())
            return []
        self.keep(project_id, task_id)
        forgotten = [
            mask for mask in self.of_task(project_id, task_id) if mask.is_forgotten_in(annotation.result)
        ]
        self._mark(project_id, task_id, annotation.id, [mask.region_id for mask in forgotten])
        return [mask.label for mask in forgotten]

    def follow_removal(self, project_id: int, annotation_ids: Collection[int]) -> None:
        """Applies the deletion of annotations: what they lack is no longer missing."""
        with self._engine.begin() as connection:
            connection.execute(
                update(UnacceptedMask)
                .where(UnacceptedMask.project_id == project_id)
                .where(UnacceptedMask.annotation_id.in_(list(annotation_ids)))
                .values(annotation_id=None)
            )

    def of_task(self, project_id: int, task_id: int) -> list[KeptMask]:
        """Returns the kept masks of a task, oldest first."""
        return self._read(and_(UnacceptedMask.project_id == project_id, UnacceptedMask.task_id == task_id))

    def of_project(self, project_id: int, *, only_marked: bool) -> list[KeptMask]:
        """Returns the kept masks of a project, oldest first; or only those that a webhook showed to be missing."""
        is_wanted = UnacceptedMask.annotation_id.is_not(None) if only_marked else literal(True)
        return self._read(and_(UnacceptedMask.project_id == project_id, is_wanted))

    def counts(self) -> dict[int, int]:
        """Returns the number of masks that annotations lack, per project id."""
        query = (
            select(UnacceptedMask.project_id, func.count())
            .where(UnacceptedMask.annotation_id.is_not(None))
            .group_by(UnacceptedMask.project_id)
        )
        with self._engine.connect() as connection:
            return {project_id: count for project_id, count in connection.execute(query)}

    def mask(self, project_id: int, kept: KeptMask) -> GivenMask | None:
        """Returns the pixels of a kept mask; None if it is gone."""
        query = select(
            UnacceptedMask.width,
            UnacceptedMask.height,
            UnacceptedMask.rle,
            UnacceptedMask.score,
            UnacceptedMask.reference_versions,
        ).where(_is(project_id, kept.task_id, [kept.region_id]))
        with self._engine.connect() as connection:
            return given_mask(connection.execute(query).first())

    def recovered(self, project_id: int, kept: KeptMask) -> None:
        """Drops a mask that is in its annotation now."""
        self._drop(project_id, kept.task_id, [kept.region_id])

    def _keep(self, which: ColumnElement[bool]) -> None:
        columns = [*_KEY, *_COPIED]
        copied = select(*(getattr(State, name) for name in columns)).where(which, State.accepted.is_(False))
        statement = upsert(self._engine, UnacceptedMask, _COPIED, newest_by="requested_at_s")
        with self._engine.begin() as connection:
            connection.execute(statement.from_select(columns, copied))

    def _drop(self, project_id: int, task_id: int, region_ids: Iterable[str]) -> None:
        """Drops masks that are in an annotation, and notes it for objects that the click history still has."""
        ids = sorted(region_ids)
        if not ids:
            return
        with self._engine.begin() as connection:
            connection.execute(
                update(State)
                .where(State.project_id == project_id, State.task_id == task_id, State.region_id.in_(ids))
                .values(accepted=True)
            )
            connection.execute(delete(UnacceptedMask).where(_is(project_id, task_id, ids)))

    def _mark(self, project_id: int, task_id: int, annotation_id: int, region_ids: Collection[str]) -> None:
        """Marks what an annotation lacks now, and nothing else."""
        of_task = and_(UnacceptedMask.project_id == project_id, UnacceptedMask.task_id == task_id)
        with self._engine.begin() as connection:
            connection.execute(
                update(UnacceptedMask)
                .where(of_task, UnacceptedMask.annotation_id == annotation_id)
                .values(annotation_id=None)
            )
            if region_ids:
                connection.execute(
                    update(UnacceptedMask)
                    .where(_is(project_id, task_id, region_ids))
                    .values(annotation_id=annotation_id)
                )

    def _read(self, which: ColumnElement[bool]) -> list[KeptMask]:
        query = (
            select(
                UnacceptedMask.task_id,
                UnacceptedMask.region_id,
                UnacceptedMask.label,
                UnacceptedMask.to_name,
                UnacceptedMask.clicks,
                UnacceptedMask.box,
                UnacceptedMask.step_dots,
                UnacceptedMask.annotation_id,
            )
            .where(which)
            .order_by(UnacceptedMask.requested_at_s)
        )
        with self._engine.connect() as connection:
            return [
                KeptMask(
                    row.task_id,
                    row.region_id,
                    row.label,
                    row.to_name,
                    frozenset(str(prompt[0]) for prompt in [*row.clicks, *([row.box] if row.box else [])])
                    | frozenset(row.step_dots or ()),
                    row.annotation_id,
                )
                for row in connection.execute(query)
            ]


def _is(project_id: int, task_id: int, region_ids: Collection[str]) -> ColumnElement[bool]:
    return and_(
        UnacceptedMask.project_id == project_id,
        UnacceptedMask.task_id == task_id,
        UnacceptedMask.region_id.in_(list(region_ids)),
    )
