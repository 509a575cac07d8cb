from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.training.holdout import HoldoutRules, Split, decide_splits

RULES = HoldoutRules()


def images(count: int, name: str = "") -> list[str]:
    return [hashlib.sha256(f"{name}{number}".encode()).hexdigest() for number in range(count)]


def held_out(splits: dict[str, Split]) -> set[str]:
    return {content for content, split in splits.items() if split is Split.HOLDOUT}


def test_the_share_is_held_out():
    splits = decide_splits(images(2000), {}, (), RULES)
    assert 0.17 < len(held_out(splits)) / 2000 < 0.23


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 0), (2, 1), (8, 4), (10, 5), (12, 5)])
def test_at_least_five_are_held_out_where_that_leaves_as_many_to_train_on(count, expected):
    assert len(held_out(decide_splits(images(count), {}, (), HoldoutRules(share=1e-9)))) == expected


def test_nothing_is_held_out_with_a_share_of_zero():
    assert held_out(decide_splits(images(100), {}, (), HoldoutRules(share=0.0))) == set()


def test_the_split_depends_on_the_images_and_not_on_their_order():
    some = images(40)
    shuffled = random.Random(1).sample(some, len(some))
    assert decide_splits(some, {}, (), RULES) == decide_splits(shuffled, {}, (), RULES)


def test_images_with_references_are_not_held_out():
    some = images(100)
    assert held_out(decide_splits(some, {}, some[:60], RULES)) & set(some[:60]) == set()


def test_a_held_out_image_that_becomes_a_reference_leaves_the_holdout_and_is_not_trained_on():
    some = images(40)
    first = decide_splits(some, {}, (), RULES)
    marked = min(held_out(first))
    second = decide_splits(some, first, {marked}, RULES)
    third = decide_splits(some, second, (), RULES)
    assert second[marked] is third[marked] is Split.SPENT


ROUND = st.tuples(
    st.sets(st.integers(0, 40), max_size=30),
    st.sets(st.integers(0, 40), max_size=4),
    st.floats(0, 0.5),
    st.integers(1, 8),
)


@given(st.lists(ROUND, max_size=8))
def test_no_order_or_number_of_retrains_puts_a_holdout_image_into_a_train_set(rounds):
    """Images come and go, references are given and taken back, the settings change. `seen`: what a training may have
    looked at, to train on or as a reference."""
    names = images(41)
    known: dict[str, Split] = {}
    compared: set[str] = set()
    trained: set[str] = set()
    seen: set[str] = set()
    for annotated, marked, share, at_least in rounds:
        with_references = {names[n] for n in marked}
        rules = HoldoutRules(share, at_least)
        splits = decide_splits({names[n] for n in annotated}, known, with_references, rules)
        known |= splits
        train = {c for c, split in splits.items() if split is Split.TRAIN}
        trained |= train
        seen |= train | with_references
        compared |= held_out(splits)
        assert not held_out(splits) & seen
        assert not compared & trained
