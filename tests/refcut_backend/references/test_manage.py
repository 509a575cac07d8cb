"""Owner rules: added, pinned and disabled references, whatever happens to the annotations meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from refcut_backend.errors import NotConnectedError
from refcut_backend.images.uploads import Uploads
from refcut_backend.references.manage import ReferenceManager
from refcut_backend.references.parse import Weakness
from refcut_backend.references.selection import (
    Action,
    NoSuchReferenceError,
    OwnerRule,
    ReferenceSelector,
    State,
)
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.recorded import LABEL_CONFIG, brush_result
from tests.support.registry import DOOR, MOVED, WHEEL, Registry, marked, open_registry


@dataclass
class Owner:
    """A project's owner, the registry, and the Label Studio behind it."""

    registry: Registry
    api: LabelStudioApi

    @property
    def manager(self) -> ReferenceManager:
        r = self.registry
        return ReferenceManager(r.references, r.projects, Uploads(r.engine), r.reconciler, 4)

    def states(self) -> dict[int, State]:
        return {row.candidate.annotation_id: row.state for row in self.manager.rows(7)}


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    with serving(LabelStudioApi()) as api, open_registry(tmp_path) as registry:
        registry.connect(api)
        yield Owner(registry, api)


def test_a_task_added_for_a_label_is_its_reference_though_nobody_marked_it(owner):
    owner.api.annotate(1, 10, DOOR, WHEEL)
    (found,) = owner.manager.add(7, ReferenceSelector("Wheel", 10, 1))
    assert found.annotation_id == 1
    assert owner.registry.in_use("Wheel") == [1]
    assert owner.registry.in_use("Door") == []
    assert owner.states() == {1: State.EXPLICITLY_ADDED}


def test_an_added_reference_follows_edits_and_disappears_with_its_annotation(owner):
    owner.api.annotate(1, 10, DOOR)
    owner.manager.add(7, ReferenceSelector("Door", 10, 1))
    before = owner.registry.state()
    owner.registry.follow(owner.api.annotate(1, 10, MOVED))
    assert owner.registry.state() != before
    owner.api.annotate(1, 10, DOOR)
    owner.registry.reconciler.compare(7)
    assert owner.registry.state() == before
    owner.registry.follow(owner.api.delete_annotation(1))
    assert owner.registry.in_use() == []
    (rule,) = owner.manager.rules_without_reference(7)
    assert rule == OwnerRule(Action.ADD, "Door", 10, 1)


@pytest.mark.parametrize("selector", [ReferenceSelector("Door", 10), ReferenceSelector("Door", 10, 1)])
def test_an_added_reference_goes_when_the_owner_withdraws_it(owner, selector):
    owner.api.annotate(1, 10, DOOR)
    owner.manager.add(7, selector)
    owner.manager.remove(7, selector)
    assert owner.manager.rows(7) == []
    with pytest.raises(NoSuchReferenceError, match="not added"):
        owner.manager.remove(7, selector)


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (ReferenceSelector("Wheel", 10), "no region of 'Wheel', task 10"),
        (ReferenceSelector("Door", 10, 2), "annotation 2"),
        (ReferenceSelector("Door", 99), "no task 99"),
        (ReferenceSelector("Dor", 10), "it has: Door, Hood, Light, Wheel"),
    ],
)
def test_naming_what_does_not_exist_is_explained_and_keeps_nothing(owner, selector, message):
    owner.api.annotate(1, 10, DOOR)
    with pytest.raises(NoSuchReferenceError, match=message):
        owner.manager.add(7, selector)
    assert owner.registry.references.rules.of_project(7) == []


def test_a_pinned_reference_is_the_only_one_used_also_after_an_edit_and_for_newer_ones(owner):
    for number in (1, 2):
        owner.registry.follow(owner.api.annotate(number, 10 * number, DOOR, marked(DOOR)))
    owner.manager.pin(7, ReferenceSelector("Door", 10))
    owner.registry.follow(owner.api.annotate(1, 10, MOVED, marked(MOVED)))
    owner.registry.follow(owner.api.annotate(3, 30, DOOR, marked(DOOR)))
    assert owner.registry.in_use() == [1]
    assert owner.states() == {1: State.PINNED, 2: State.NOT_PINNED, 3: State.NOT_PINNED}
    owner.manager.unpin(7, ReferenceSelector("Door", annotation_id=1))
    assert sorted(owner.registry.in_use()) == [1, 2, 3]


def test_a_moved_reference_keeps_its_place_through_edits_comparisons_and_new_references(owner):
    for number in range(1, 7):
        owner.registry.follow(owner.api.annotate(number, 10 * number, DOOR, marked(DOOR)))
    assert sorted(owner.registry.in_use()) == [3, 4, 5, 6]
    assert owner.manager.move(7, ReferenceSelector("Door", 10), 1) == 1
    assert sorted(owner.registry.in_use()) == [1, 4, 5, 6]
    owner.registry.follow(owner.api.annotate(1, 10, MOVED, marked(MOVED)))
    owner.registry.follow(owner.api.annotate(7, 70, DOOR, marked(DOOR)))
    owner.registry.later(3600)
    owner.registry.reconciler.compare(7)
    (found,) = owner.manager.by_label(7, "Door")
    assert [row.candidate.annotation_id for row in found.rows] == [1, 7, 6, 5, 4, 3, 2]
    assert [row.place for row in found.rows] == [1, 2, 3, 4, 5, 6, 7]
    assert (found.in_order, found.is_moved) == (7, True)
    assert owner.states()[4] is State.OVER_LIMIT
    owner.manager.newest_first(7, "Door")
    assert sorted(owner.registry.in_use()) == [1, 5, 6, 7], "an edited annotation counts as new"
    with pytest.raises(NoSuchReferenceError, match="no reference of 'Door' was moved"):
        owner.manager.newest_first(7, "Door")


def test_a_place_survives_that_its_region_is_unmarked_for_a_while(owner):
    for number in (1, 2):
        owner.registry.follow(owner.api.annotate(number, 10 * number, DOOR, marked(DOOR)))
    owner.manager.move(7, ReferenceSelector("Door", 10), 1)
    owner.registry.follow(owner.api.annotate(1, 10, DOOR))
    assert owner.states() == {2: State.USED}
    owner.registry.follow(owner.api.annotate(1, 10, DOOR, marked(DOOR)))
    owner.registry.follow(owner.api.annotate(2, 20, MOVED, marked(MOVED)))
    assert list(owner.states()) == [1, 2]


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (ReferenceSelector("Door", 99), "there is no reference of 'Door', task 99"),
        (ReferenceSelector("Door", 20), "'Door', task 20 cannot be moved: disabled"),
    ],
)
def test_a_move_of_what_cannot_be_moved_is_refused_and_changes_nothing(owner, selector, message):
    for number in (1, 2):
        owner.registry.follow(owner.api.annotate(number, 10 * number, DOOR, marked(DOOR)))
    owner.manager.disable(7, ReferenceSelector("Door", 20))
    before = owner.states()
    with pytest.raises(NoSuchReferenceError, match=message):
        owner.manager.move(7, selector, 1)
    assert owner.states() == before


def test_references_of_a_project_that_is_not_known_cannot_be_moved(owner):
    for move in (
        lambda: owner.manager.move(99, ReferenceSelector("Door", 10), 1),
        lambda: owner.manager.newest_first(99, "Door"),
    ):
        with pytest.raises(NotConnectedError):
            move()


def test_a_disabled_reference_stays_off_through_edits_until_it_is_enabled(owner):
    owner.registry.follow(owner.api.annotate(1, 10, DOOR, marked(DOOR)))
    owner.manager.disable(7, ReferenceSelector("Door", 10))
    owner.registry.follow(owner.api.annotate(1, 10, DOOR))
    owner.registry.follow(owner.api.annotate(1, 10, MOVED, marked(MOVED)))
    assert owner.registry.in_use() == []
    owner.manager.enable(7, ReferenceSelector("Door", 10))
    assert owner.registry.in_use() == [1]


def test_a_disabled_label_is_off_for_references_still_to_come(owner):
    owner.manager.disable(7, ReferenceSelector("Door"))
    owner.registry.follow(owner.api.annotate(1, 10, DOOR, WHEEL, marked(DOOR), marked(WHEEL)))
    assert (owner.registry.in_use("Door"), owner.registry.in_use("Wheel")) == ([], [1])
    owner.manager.enable(7, ReferenceSelector("Door"))
    assert owner.registry.in_use("Door") == [1]


def test_the_owners_word_survives_a_restart(owner, tmp_path):
    for number in (1, 2):
        owner.registry.follow(owner.api.annotate(number, 10 * number, DOOR, marked(DOOR)))
    owner.manager.pin(7, ReferenceSelector("Door", 10))
    with open_registry(tmp_path) as restarted:
        assert restarted.in_use() == [1]


def test_what_the_extra_parameters_say_is_taken_back_there(owner):
    owner.registry.follow(owner.api.annotate(1, 10, DOOR, marked(DOOR)))
    owner.registry.follower.follow_extra_params(7, {"disable": ["Door"]})
    with pytest.raises(NoSuchReferenceError, match="extra parameters"):
        owner.manager.enable(7, ReferenceSelector("Door"))


@pytest.mark.parametrize("method", ["pin", "disable"])
def test_a_place_without_a_reference_cannot_be_pinned_or_disabled(owner, method):
    with pytest.raises(NoSuchReferenceError, match="refcut references list"):
        getattr(owner.manager, method)(7, ReferenceSelector("Door", 10))
    with pytest.raises(NoSuchReferenceError):
        owner.manager.pin(7, ReferenceSelector("Door"))


def test_a_list_names_what_makes_a_reference_weak(owner):
    whole = brush_result("d", "Door", np.ones((20, 60), bool))
    owner.registry.follow(owner.api.annotate(1, 10, whole, marked(whole)))
    (row,) = owner.manager.rows(7)
    assert row.facts.weaknesses == (Weakness.LARGE, Weakness.NO_NEGATIVE)
    config = LABEL_CONFIG.replace('value="Door"', 'value="Gate"')
    owner.registry.projects.remember(7, owner.api.connection, config)
    (row,) = owner.manager.rows(7)
    assert row.state is State.NO_LABEL
    assert Weakness.NO_LABEL in row.facts.weaknesses
    assert owner.manager.rows(7, "Wheel") == []


def test_labels_without_a_reference_in_use_are_listed(owner):
    assert {"Door", "Wheel"} <= set(owner.manager.labels_without_reference(7))
    owner.registry.follow(owner.api.annotate(1, 10, DOOR, WHEEL, marked(DOOR), marked(WHEEL)))
    owner.manager.disable(7, ReferenceSelector("Wheel", 10))
    without = owner.manager.labels_without_reference(7)
    assert "Wheel" in without
    assert "Door" not in without
    owner.registry.projects.remember(7, owner.api.connection, "no label config")
    assert owner.manager.labels_without_reference(7) == []


def test_an_unknown_project_says_how_to_connect_it(owner):
    with pytest.raises(NotConnectedError):
        owner.manager.rows(99)


@pytest.mark.parametrize("method", ["add", "pin", "disable"])
def test_an_unknown_project_is_an_error(owner, method):
    with pytest.raises(NotConnectedError, match="99"):
        getattr(owner.manager, method)(99, ReferenceSelector("Door", 10))
    assert owner.registry.references.rules.of_project(99) == []


def test_a_label_of_a_project_that_is_not_known_cannot_be_disabled(owner):
    with pytest.raises(NotConnectedError):
        owner.manager.disable(99, ReferenceSelector("Door"))
