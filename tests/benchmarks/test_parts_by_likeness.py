from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.parts_by_likeness import SingleThing, distances_to_groups, parts_of
from model.data.annotated_objects import AnnotatedObject

GRID = 6
HEAD, BODY = np.eye(30, dtype=np.float32)[:2]


def animal(head_columns: int) -> SingleThing:
    """A thing of 4 x 6 patches on a grid of 6 x 6 whose left columns look like a head; pixels are 10 to a patch."""
    mask_hw = np.zeros((60, 60), bool)
    mask_hw[10:50] = True
    rng = np.random.default_rng(head_columns)
    features = np.where((np.arange(GRID) < head_columns)[None, :, None], HEAD, BODY)
    features = np.repeat(features, GRID, axis=0).reshape(GRID * GRID, -1)
    features = (features + rng.normal(0, 0.02, features.shape)).astype(np.float32)
    shares = np.zeros((GRID, GRID), np.float32)
    shares[1:5] = 1
    photograph = AnnotatedObject(Path("a.jpg"), "", {}, False, True)
    return SingleThing(photograph, mask_hw, features, shares.reshape(-1))


def test_parts_carry_over_between_the_things_of_a_kind_and_fill_their_masks() -> None:
    things = [animal(head_columns) for head_columns in (2, 3, 4)]
    grouped = distances_to_groups(things, 2)
    assert grouped is not None
    heads = set()
    for head_columns, thing, distances in zip((2, 3, 4), things, grouped, strict=True):
        parts = dict(parts_of(thing, distances))
        assert len(parts) == 2
        assert np.array_equal(np.logical_or.reduce(list(parts.values())), thing.mask_hw)
        (head,) = [group for group, mask_hw in parts.items() if mask_hw[30, 5]]
        columns = np.flatnonzero(parts[head].any(axis=0))
        assert abs(len(columns) - 10 * head_columns) <= 4
        heads.add(head)
    assert len(heads) == 1


def test_a_thing_that_shows_one_group_has_no_parts() -> None:
    things = [animal(3), animal(3), animal(6)]
    grouped = distances_to_groups(things, 2)
    assert grouped is not None
    assert parts_of(things[2], grouped[2]) == []


def test_a_kind_that_shows_too_little_has_no_parts() -> None:
    assert distances_to_groups([animal(2)], 2) is None


def test_what_is_too_small_for_a_part_is_left_to_the_others() -> None:
    thing = animal(3)
    distances = np.ones((GRID * GRID, 3), np.float32)
    distances[:, 1] = np.where(np.arange(GRID * GRID) % GRID < 3, 0.5, 1.5)
    distances[:, 2] = 2
    distances[2 * GRID + 4, 2] = -1.5
    parts = dict(parts_of(thing, distances))
    assert sorted(parts) == [0, 1]
    assert np.array_equal(parts[0] | parts[1], thing.mask_hw)
