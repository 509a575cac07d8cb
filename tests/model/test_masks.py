"""Questions that masks answer, and their run lengths."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.masks import (
    bounding_box,
    clicked_pieces,
    connected,
    count_pieces,
    decode,
    deepest_point,
    distance_inside,
    encode,
    evenly_spaced,
    intersection_over_union,
    union,
)
from model.types import Click

quick = settings(database=None, deadline=None, max_examples=60)


def box_mask(rows: slice, cols: slice, size: tuple[int, int] = (8, 10)) -> np.ndarray:
    mask_hw = np.zeros(size, bool)
    mask_hw[rows, cols] = True
    return mask_hw


LEFT, RIGHT = box_mask(slice(0, 8), slice(0, 5)), box_mask(slice(0, 8), slice(5, 10))
EMPTY = np.zeros((8, 10), bool)


def test_a_union_holds_the_pixels_of_all_masks() -> None:
    assert union([LEFT, RIGHT]).all()
    assert np.array_equal(union(iter([LEFT])), LEFT)


def test_a_union_of_no_masks_is_empty_when_its_size_is_known() -> None:
    assert np.array_equal(union([], size=(8, 10)), EMPTY)
    with pytest.raises(ValueError, match="a mask or a size"):
        union([])


def test_masks_of_several_sizes_have_no_union() -> None:
    with pytest.raises(ValueError, match="shape"):
        union([LEFT, np.zeros((3, 3), bool)])


def test_overlap_is_the_share_of_common_pixels_and_whole_for_two_empty_masks() -> None:
    assert intersection_over_union(LEFT, union([LEFT, RIGHT])) == 0.5
    assert intersection_over_union(LEFT, RIGHT) == 0.0
    assert intersection_over_union(EMPTY, EMPTY) == 1.0


def test_the_border_of_the_image_is_outside_a_mask() -> None:
    distance = distance_inside(np.ones((5, 5), bool))
    assert (distance[0, 0], distance[2, 2]) == (1.0, 3.0)
    assert deepest_point(box_mask(slice(1, 6), slice(2, 9))) == (3, 4)


def test_masks_that_touch_at_a_corner_are_connected() -> None:
    corner = box_mask(slice(0, 2), slice(0, 2))
    assert connected(corner, box_mask(slice(2, 4), slice(2, 4)))
    assert not connected(corner, box_mask(slice(3, 4), slice(2, 4)))


@quick
@given(st.integers(0, 60), st.none() | st.integers(0, 80))
def test_evenly_spaced_items_keep_their_order_and_no_item_comes_twice(count: int, limit: int | None) -> None:
    chosen = evenly_spaced(range(count), limit)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == (count if limit is None else min(count, limit))
    steps = np.diff(chosen)
    assert not len(steps) or steps.max() - steps.min() <= 1


@quick
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_run_lengths_bring_a_mask_back_through_json(height: int, width: int, seed: int) -> None:
    mask_hw = np.random.default_rng(seed).random((height, width)) < 0.5
    rle = json.loads(json.dumps(encode(mask_hw)))
    assert rle["size"] == [height, width]
    assert np.array_equal(decode(rle), mask_hw)


@quick
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_bounding_box_contains_the_mask_and_is_tight(height: int, width: int, data: st.DataObject) -> None:
    mask = np.zeros((height, width), bool)
    points = data.draw(st.lists(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)), min_size=1))
    for point in points:
        mask[point] = True
    box = mask[bounding_box(mask).slices]
    assert box.sum() == mask.sum()
    assert all(edge.any() for edge in (box[0], box[-1], box[:, 0], box[:, -1]))


def test_specks_are_no_pieces() -> None:
    mask_hw = np.zeros((40, 40), bool)
    assert count_pieces(mask_hw) == 0
    mask_hw[2:12, 2:12] = mask_hw[20:30, 2:12] = True
    mask_hw[35, 35] = True
    assert count_pieces(mask_hw) == 2


def three_pieces() -> np.ndarray:
    """A square of 20 x 20 pixels, a speck two pixels beside it, and a speck far away."""
    mask_hw = np.zeros((100, 100), bool)
    mask_hw[:20, :20] = mask_hw[:5, 21:26] = mask_hw[70:75, 70:75] = True
    return mask_hw


def test_specks_near_the_clicked_piece_stay_and_those_far_away_go_unless_they_are_clicked_on() -> None:
    mask_hw = three_pieces()
    far_hw = mask_hw.copy()
    far_hw[:50] = False
    assert np.array_equal(clicked_pieces(mask_hw, [Click(5, 5)]), mask_hw & ~far_hw)
    assert np.array_equal(clicked_pieces(mask_hw, [Click(5, 5), Click(72, 72)]), mask_hw)
    assert np.array_equal(
        clicked_pieces(mask_hw, [Click(5, 5), Click(72, 72, positive=False)]), mask_hw & ~far_hw
    )


def test_specks_are_the_same_wherever_the_mask_lies_in_the_image() -> None:
    mask_hw = three_pieces()
    moved_hw = np.pad(mask_hw, ((31, 3), (17, 0)))
    expected_hw = np.pad(clicked_pieces(mask_hw, [Click(5, 5)]), ((31, 3), (17, 0)))
    assert np.array_equal(clicked_pieces(moved_hw, [Click(36, 22)]), expected_hw)
    assert np.array_equal(clicked_pieces(moved_hw, [Click(0, 0), Click(36.5, 22)]), expected_hw)


def test_a_piece_that_is_no_speck_beside_the_clicked_one_stays() -> None:
    mask_hw = three_pieces()
    assert np.array_equal(clicked_pieces(mask_hw, [Click(72, 72)]), mask_hw)


def test_without_a_positive_click_on_the_mask_all_pieces_stay() -> None:
    mask_hw = three_pieces()
    assert np.array_equal(clicked_pieces(mask_hw, [Click(50, 50), Click(5, 5, positive=False)]), mask_hw)
    assert not clicked_pieces(np.zeros((4, 4), bool), [Click(1, 1)]).any()
