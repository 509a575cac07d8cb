"""The order of a label's references that its owner chose: how it is stored, and what a move changes.

The owner moves a reference to a place. It and all that stand before it then keep their places; references after them
follow by the rules of `selection.py`. So a move to the front leaves the newest references next in turn, and a reference
that is marked later comes after the last one that has a place.

A place belongs to a label in an annotation, as the owner's other decisions do, and survives edits of the annotation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Engine, bindparam, delete, select
from sqlalchemy.orm import Session

from refcut_backend.database.tables import Project, ReferencePlace
from refcut_backend.references.selection import (
    IN_ORDER,
    Candidate,
    NoSuchReferenceError,
    ReferenceSelector,
    State,
    places,
)

_OF_LABEL = select(ReferencePlace.annotation_id).where(
    ReferencePlace.project_id == bindparam("project_id"), ReferencePlace.label == bindparam("label")
)
"""Built once, because every click runs it."""

GivenBy = tuple[int, int]
"""Task and annotation, as `Candidate.given_by`."""


class ReferencePlaces:
    """Stores the places that owners chose, of all projects."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def annotations(self, project_id: int, label: str) -> set[int]:
        """Returns the annotations whose references of a label were moved."""
        with self._engine.connect() as connection:
            return set(connection.scalars(_OF_LABEL, {"project_id": project_id, "label": label}))

    def replace(self, project_id: int, label: str, chosen: Mapping[GivenBy, int]) -> None:
        """Stores the places of a label's references in place of all that it had.

        Args:
            project_id: The project.
            label: The label.
            chosen: Places from 1 on. Empty: the owner chooses no order.
        """
        with Session(self._engine) as session, session.begin():
            # One after another: two moves at the same moment would store the same row.
            session.execute(select(Project.id).where(Project.id == project_id).with_for_update())
            session.execute(
                delete(ReferencePlace).where(
                    ReferencePlace.project_id == project_id, ReferencePlace.label == label
                )
            )
            session.add_all(
                ReferencePlace(
                    project_id=project_id,
                    label=label,
                    task_id=task_id,
                    annotation_id=annotation_id,
                    place=place,
                )
                for (task_id, annotation_id), place in chosen.items()
            )


def selected_in_order(listed: Sequence[tuple[Candidate, State]], selector: ReferenceSelector) -> GivenBy:
    """Returns the one selected reference that has a place in the order of use.

    Args:
        listed: All references of the label, as `states` lists them.
        selector: Selects at least one of them.

    Raises:
        NoSuchReferenceError: Something other than the limit keeps it out of use, or several are selected.
    """
    found = {c.given_by: state for c, state in listed if selector.selects(c)}
    ordered = [given_by for given_by, state in found.items() if state in IN_ORDER]
    if not ordered:
        state = next(iter(found.values()))
        raise NoSuchReferenceError(
            f"{selector} cannot be moved: {state.removeprefix('not used: ')}",
            hint="only references that could be used have a place",
        )
    if len(ordered) > 1:
        raise NoSuchReferenceError(f"{selector} has several references", hint="name one by its annotation")
    return ordered[0]


def after_move(listed: Sequence[tuple[Candidate, State]], moved: GivenBy, place: int) -> dict[GivenBy, int]:
    """Returns the places to store when a reference is moved.

    Args:
        listed: All references of the label, as `states` lists them.
        moved: The reference; it has a place in the order of use.
        place: Its new place, from 1 on. A number that is too large stands for the last place.
    """
    order = list(places(listed))
    chosen = {c.given_by for c, state in listed if c.moved_to is not None and state in IN_ORDER}
    order.remove(moved)
    order.insert(place - 1, moved)
    keep = max(len(chosen | {moved}), order.index(moved) + 1)
    out_of_order = {
        candidate.given_by: candidate.moved_to
        for candidate, state in listed
        if candidate.moved_to is not None and state not in IN_ORDER
    }
    return out_of_order | {given_by: number for number, given_by in enumerate(order[:keep], start=1)}
