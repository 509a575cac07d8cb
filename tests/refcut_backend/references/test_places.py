"""The order of references that an owner chose: what a move changes, and that it is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from refcut_backend.database.projects import Projects
from refcut_backend.database.tables import ReferencePlace
from refcut_backend.label_studio.connection import Connection
from refcut_backend.references.places import ReferencePlaces, after_move, selected_in_order
from refcut_backend.references.selection import (
    EVERYBODY,
    Action,
    Candidate,
    NoSuchReferenceError,
    OwnerRule,
    ReferenceSelector,
    State,
    states,
)
from tests.refcut_backend.references.test_selection import candidate
from tests.support.recorded import LABEL_CONFIG

LIMIT = 2


class Label:
    """Five references of Wheel, of which clicks use two. The higher the number, the newer."""

    def __init__(self) -> None:
        self.candidates = [candidate(number) for number in range(1, 6)]
        self.rules: list[OwnerRule] = []

    def listed(self) -> list[tuple[Candidate, State]]:
        return states(self.candidates, self.rules, EVERYBODY, LIMIT)

    def order(self) -> list[int]:
        return [c.id for c, _ in self.listed()]

    def move(self, number: int, place: int) -> list[int]:
        chosen = after_move(self.listed(), (10 * number, 100 * number), place)
        self.candidates = [replace(c, moved_to=chosen.get(c.given_by)) for c in self.candidates]
        return self.order()

    def moved(self) -> set[int]:
        return {c.id for c in self.candidates if c.moved_to}


def test_a_moved_reference_takes_its_place_and_clicks_use_the_first() -> None:
    label = Label()
    assert label.order() == [5, 4, 3, 2, 1]
    assert label.move(2, 1) == [2, 5, 4, 3, 1]
    assert [state for _, state in label.listed()] == [State.USED] * 2 + [State.OVER_LIMIT] * 3
    assert label.move(1, 2) == [2, 1, 5, 4, 3]
    assert label.move(2, 2) == [1, 2, 5, 4, 3]
    assert label.moved() == {1, 2}


def test_what_stands_before_a_moved_reference_keeps_its_place_and_a_new_one_comes_after() -> None:
    label = Label()
    assert label.move(5, 3) == [4, 3, 5, 2, 1]
    assert label.moved() == {3, 4, 5}
    label.candidates.append(candidate(6))
    assert label.order() == [4, 3, 5, 6, 2, 1]


def test_a_place_that_is_too_large_is_the_last_one() -> None:
    label = Label()
    assert label.move(5, 99) == [4, 3, 2, 1, 5]
    assert label.moved() == {1, 2, 3, 4, 5}


def test_a_disabled_reference_keeps_its_place_while_others_move() -> None:
    label = Label()
    label.move(1, 1)
    label.rules = [OwnerRule(Action.DISABLE, "Wheel", 10)]
    assert label.order() == [5, 4, 3, 2, 1]
    assert label.move(3, 2) == [5, 3, 4, 2, 1]
    label.rules = []
    assert label.order()[:3] == [5, 1, 3]


def test_the_order_is_also_that_of_pinned_references() -> None:
    label = Label()
    label.rules = [OwnerRule(Action.PIN, "Wheel", 10 * number) for number in (1, 2, 3)]
    assert label.move(1, 1)[:3] == [1, 3, 2]
    assert [c.id for c, state in label.listed() if state is State.PINNED] == [1, 3]


@pytest.mark.parametrize(
    ("rule", "selector", "message"),
    [
        (Action.DISABLE, ReferenceSelector("Wheel", 10), "task 10 cannot be moved: disabled"),
        (Action.PIN, ReferenceSelector("Wheel", 20), "task 20 cannot be moved: others are pinned"),
        (None, ReferenceSelector("Wheel"), "'Wheel' has several references"),
    ],
)
def test_what_cannot_be_moved_is_refused_with_the_reason(
    rule: Action | None, selector: ReferenceSelector, message: str
) -> None:
    label = Label()
    label.rules = [OwnerRule(rule, "Wheel", 10)] if rule else []
    with pytest.raises(NoSuchReferenceError, match=message):
        selected_in_order(label.listed(), selector)


def stored(engine: Engine) -> dict[tuple[int, str], dict[int, int]]:
    found: dict[tuple[int, str], dict[int, int]] = {}
    with Session(engine) as session:
        for row in session.scalars(select(ReferencePlace)):
            found.setdefault((row.project_id, row.label), {})[row.annotation_id] = row.place
    return found


def test_places_belong_to_a_label_of_a_project_and_go_with_it(engine: Engine) -> None:
    places = ReferencePlaces(engine)
    places.replace(7, "Door", {(10, 1): 1, (0, -(2**52)): 2})
    places.replace(7, "Wheel", {(10, 1): 1})
    places.replace(8, "Door", {(10, 1): 1})
    places.replace(7, "Door", {(20, 2): 1})
    assert stored(engine) == {(7, "Door"): {2: 1}, (7, "Wheel"): {1: 1}, (8, "Door"): {1: 1}}
    places.replace(7, "Wheel", {})
    assert (7, "Wheel") not in stored(engine)
    Projects(engine).forget(7)
    assert stored(engine) == {(8, "Door"): {1: 1}}


def move_at_once(engine: Engine) -> None:
    """Eight people give the references of a label different orders; one of them is stored."""
    Projects(engine).remember(7, Connection("http://label-studio.test", "t"), LABEL_CONFIG)
    references = ReferencePlaces(engine)

    def move(number: int) -> None:
        for _ in range(5):
            references.replace(7, "Door", {(1, 1): number, (2, 2): number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(move, range(1, 9)))
    assert len(set(stored(engine)[7, "Door"].values())) == 1


def test_of_moves_at_the_same_moment_one_wins_and_none_fails(engine: Engine) -> None:
    move_at_once(engine)
