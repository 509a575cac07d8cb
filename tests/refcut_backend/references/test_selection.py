from __future__ import annotations

import time

import pytest

from refcut_backend.errors import ConfigError
from refcut_backend.references.selection import (
    EVERYBODY,
    NO_TASK,
    Action,
    Author,
    Authors,
    Candidate,
    OwnerRule,
    State,
    in_use,
    states,
)


def candidate(
    number: int, *, explicitly_added: bool = False, task: int | None = None, author: int = 1
) -> Candidate:
    """The higher the number, the newer; task and annotation are ten and a hundred times the number."""
    return Candidate(
        id=number,
        version=f"v{number}",
        label="Wheel",
        task_id=10 * number if task is None else task,
        annotation_id=100 * number,
        annotated_at=f"2026-01-0{number}",
        explicitly_added=explicitly_added,
        author=Author(author, f"user{author}@example.com"),
    )


def used(*candidates: Candidate, rules: tuple[OwnerRule, ...] = (), limit: int = 4) -> list[int]:
    return [c.id for c in in_use(candidates, rules, EVERYBODY, limit)]


def state_of(number: int, *candidates: Candidate, rules: tuple[OwnerRule, ...] = (), **more: object) -> State:
    found = states(candidates, rules, EVERYBODY, 4, **more)  # type: ignore[arg-type]
    return next(state for c, state in found if c.id == number)


ONE, TWO, THREE = (candidate(number) for number in (1, 2, 3))


def test_without_rules_the_newest_are_used_up_to_the_limit():
    assert used(ONE, THREE, TWO, limit=2) == [3, 2]
    assert [state for _, state in states([ONE, TWO, THREE], [], EVERYBODY, 2)] == [
        State.USED,
        State.USED,
        State.OVER_LIMIT,
    ]


def test_a_pinned_reference_is_the_only_one_used():
    rules = (OwnerRule(Action.PIN, "Wheel", 10, 100),)
    assert used(ONE, TWO, THREE, rules=rules) == [1]
    assert state_of(3, ONE, TWO, THREE, rules=rules) is State.NOT_PINNED


def test_a_pin_whose_annotation_is_gone_does_not_switch_the_label_off():
    assert used(TWO, THREE, rules=(OwnerRule(Action.PIN, "Wheel", 10, 100),)) == [3, 2]


def test_a_disabled_reference_is_not_used_even_when_it_is_pinned():
    rules = (OwnerRule(Action.PIN, "Wheel", 10), OwnerRule(Action.DISABLE, "Wheel", 10, 100))
    assert used(ONE, TWO, rules=rules) == [2]
    assert state_of(1, ONE, TWO, rules=rules) is State.DISABLED


def test_a_disabled_label_has_no_reference_in_use():
    assert used(ONE, TWO, rules=(OwnerRule(Action.DISABLE, "Wheel"),)) == []


def test_rules_for_another_label_task_or_annotation_change_nothing():
    rules = (
        OwnerRule(Action.DISABLE, "Door"),
        OwnerRule(Action.DISABLE, "Wheel", 99),
        OwnerRule(Action.DISABLE, "Wheel", 10, 999),
    )
    assert used(ONE, TWO, rules=rules) == [2, 1]


def test_an_added_reference_comes_before_newer_marked_ones():
    assert used(
        candidate(1, explicitly_added=True), TWO, THREE, rules=(OwnerRule(Action.ADD, "Wheel", 10),)
    ) == [
        1,
        3,
        2,
    ]


def test_an_added_reference_is_not_used_once_its_rule_is_withdrawn():
    first = candidate(1, explicitly_added=True)
    assert used(first, TWO) == [2]
    assert state_of(1, first, TWO) is State.NO_LONGER_ADDED


def test_a_task_added_without_an_annotation_means_its_newest_annotation():
    old, new = candidate(1, explicitly_added=True, task=7), candidate(2, explicitly_added=True, task=7)
    rule = OwnerRule(Action.ADD, "Wheel", 7)
    assert used(old, new, rules=(rule,)) == [2]
    assert state_of(1, old, new, rules=(rule,)) is State.OLDER
    assert used(old, new, rules=(rule, OwnerRule(Action.ADD, "Wheel", 7, 100))) == [2, 1]


def test_only_allowed_authors_give_references_unless_the_owner_says_so():
    authors = Authors.read("2, USER3@example.com")
    by = [candidate(1, author=1), candidate(2, author=2), candidate(3, author=3)]
    assert [c.id for c in in_use(by, [], authors, 4)] == [3, 2]
    assert dict((c.id, s) for c, s in states(by, [], authors, 4))[1] is State.AUTHOR
    for action in (Action.PIN, Action.ADD):
        assert 1 in [c.id for c in in_use(by, [OwnerRule(action, "Wheel", 10)], authors, 4)]


def test_an_author_whose_address_is_not_known_yet_is_not_taken_for_an_allowed_one():
    assert not Authors.read("lead@example.com").allow(Author(5, None))
    assert EVERYBODY.allow(Author())


@pytest.mark.parametrize("text", ["lead", "1;2", "-3", "1.5"])
def test_an_author_that_is_neither_id_nor_address_is_refused(text):
    with pytest.raises(ConfigError, match="REFCUT_REFERENCE_AUTHORS"):
        Authors.read(text)


def test_references_of_a_label_that_left_the_config_are_shown_as_such():
    assert state_of(1, ONE, label_in_config=False) is State.NO_LABEL


def seconds_to_choose(references: int) -> float:
    """Fastest of three choices among references of one label, each added by a rule of its own, as from sets."""
    numbers = range(1, references + 1)
    added = [Candidate(n, "v", "Door", NO_TASK, -n, "2025", explicitly_added=True) for n in numbers]
    rules = [OwnerRule(Action.ADD, "Door", None, -n) for n in numbers]
    times = []
    for _ in range(3):
        begin = time.process_time()
        assert len(in_use(added, rules, EVERYBODY, 4)) == 4
        times.append(time.process_time() - begin)
    return min(times)


def test_the_time_to_choose_grows_with_the_references_of_a_label_and_not_with_their_square() -> None:
    assert seconds_to_choose(3000) < 40 * seconds_to_choose(300)
