"""Which pieces are asked for, on a grid of 8 x 8 patches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest
from numpy.random import default_rng

from model.data.target_sampling import CropParts, Question, TargetKind, TargetShares, questions

GRID = 8
PLACES_NAMES = ["sheep", "sheep", "dog", "cat"]
LEFT_SHEEP, RIGHT_SHEEP, DOG, FAR_CAT = (0, 3, 0, 2), (0, 3, 2, 4), (3, 5, 0, 2), (6, 8, 6, 8)
PLACES = {"sheep": [LEFT_SHEEP, RIGHT_SHEEP], "dog": [DOG], "cat": [FAR_CAT]}


def crop(places: dict[str, list[tuple[int, int, int, int]]]) -> CropParts:
    """A crop whose pieces (top, bottom, left, right) fill whole patches, in the order of `places`."""
    names = [name for name, boxes in places.items() for _ in boxes]
    shares = np.zeros((len(names), GRID, GRID), np.float32)
    for own, (top, bottom, left, right) in zip(shares, chain(*places.values()), strict=True):
        own[top:bottom, left:right] = 1
    return CropParts(names, [True] * len(names), shares.reshape(len(names), -1))


def asked(
    places: dict[str, list[tuple[int, int, int, int]]], kind: TargetKind, count: int = 40, **shares: float
) -> Iterator[Question]:
    for seed in range(count):
        yield from questions(crop(places), [crop(places)], kind, 3, TargetShares(**shares), default_rng(seed))


def test_a_neighbour_touches_and_does_not_lie_inside() -> None:
    places = PLACES | {"eye": [(0, 1, 0, 1)]}
    parts = crop(places)
    sheep, right, dog, cat, eye = range(5)
    assert parts.touching([sheep], [right, dog, cat, eye]) == [right, dog]


def test_two_things_that_touch_may_be_of_one_name() -> None:
    pairs = {tuple(q.pieces) for q in asked(PLACES, "instances", two_things=1.0) if len(q.pieces) == 2}
    assert pairs == {(0, 1), (1, 0), (0, 2), (2, 0)}
    for question in asked(PLACES, "instances", two_things=1.0):
        (meant,) = question.meant
        names = [PLACES_NAMES[piece] for piece in question.pieces]
        assert [PLACES_NAMES[piece] for piece in meant] == names
        assert len(set(meant)) == len(meant)


def test_a_click_on_a_thing_between_two_of_its_name_means_no_pair_with_either() -> None:
    row = {"sheep": [(0, 3, 0, 2), (0, 3, 2, 4), (0, 3, 4, 6)]}
    pairs = [q for q in asked(row, "instances", two_things=1.0) if len(q.pieces) == 2]
    assert {tuple(q.click_on) for q in pairs} == {(0,), (2,)}


def test_one_of_several_things_needs_a_click_and_the_only_one_does_not() -> None:
    for question in asked(PLACES, "instances", two_things=0.0):
        (piece,) = question.pieces
        assert question.needs_click == (piece in (0, 1))


@pytest.mark.parametrize("kind", ["instances", "all_instances"])
def test_nested_things_reach_all_of_a_name_only_where_all_are_labelled(kind: TargetKind) -> None:
    places = {"sheep": [LEFT_SHEEP, FAR_CAT], "dog": [DOG]}
    nested = [q for q in asked(places, kind, nested_things=1.0) if q.nested]
    assert all(set(q.click_on) <= set(q.pieces) for q in nested)
    assert {0, 2} in [set(q.pieces) for q in nested], "a sheep and the dog beside it"
    assert ({0, 1} in [set(q.pieces) for q in nested]) == (kind == "all_instances")


def test_several_regions_make_one_connected_target() -> None:
    rows = {f"region {row}": [(row, row + 1, 0, GRID)] for row in range(GRID)}
    several = [q for q in asked(rows, "regions", single=0.0, connected_pair=0.0, shared_click=0.0)]
    for question in several:
        pieces = sorted(question.pieces)
        assert 2 <= len(pieces) <= 4
        assert pieces == list(range(pieces[0], pieces[-1] + 1))


def test_regions_that_cover_one_place_are_asked_for_from_small_to_large() -> None:
    covering = {f"region {n}": [(0, n + 1, 0, n + 1)] for n in range(5)} | {"elsewhere": [(6, 8, 6, 8)]}
    nested = [q for q in asked(covering, "regions", shared_click=1.0) if q.nested]
    sizes = [crop(covering).shares[q.pieces].sum() for q in nested]
    assert len(set(sizes)) >= 4
    triples = [q for q in asked(covering, "regions", count=1, shared_click=1.0)]
    assert len(triples) == 3


def test_an_object_without_its_whole_is_never_asked_for_as_a_whole() -> None:
    wholes = {
        kind: [q for q in asked(PLACES, kind, single=0.0, connected_pair=0.0, whole=1.0, shared_click=0.0)]
        for kind in ("object", "parts")
    }
    assert all(len(q.pieces) == 4 for q in wholes["object"])
    assert any(len(q.pieces) < 4 for q in wholes["parts"])


def test_a_part_with_three_times_the_weight_is_asked_for_three_times_as_often() -> None:
    apart = {"door": [(0, 2, 0, 2)], "roof": [(6, 8, 6, 8)]}
    drawn = [
        question
        for seed in range(400)
        for question in questions(
            crop(apart),
            [crop(apart)],
            "parts",
            1,
            TargetShares(single=1.0, name_weights={"door": 3.0}),
            default_rng(seed),
        )
    ]
    doors = sum(question.pieces == [0] for question in drawn)
    assert len(drawn) == 400
    assert 270 < doors < 330
