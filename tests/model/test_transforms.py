"""Coordinate transforms: SimpleClick's ZoomIn, and the way there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.transforms import (
    Roi,
    bounding_roi,
    clicks_to_network,
    expanded_roi,
    mirrored,
    next_roi,
    roi_overlap,
)
from model.types import Click

quick = settings(database=None, deadline=None, max_examples=60)
COORDINATE = st.floats(0, 4000, allow_nan=False)
SIDE = st.integers(1, 3000)


@st.composite
def rois(draw: st.DrawFn) -> Roi:
    top, left = draw(st.integers(0, 2000)), draw(st.integers(0, 2000))
    return Roi(top, top + draw(SIDE) - 1, left, left + draw(SIDE) - 1)


@quick
@given(rois(), COORDINATE, COORDINATE, st.sampled_from([336, 448, 672]))
def test_clicks_go_to_the_network_and_back(roi: Roi, row: float, col: float, size_px: int) -> None:
    (there,) = clicks_to_network([Click(row, col, False)], roi, size_px)
    assert not there.positive
    assert there.row * roi.height / size_px + roi.row_min == pytest.approx(row, abs=1e-6)
    assert there.col * roi.width / size_px + roi.col_min == pytest.approx(col, abs=1e-6)


@quick
@given(st.integers(1, 3000), COORDINATE, COORDINATE, st.booleans())
def test_mirroring_twice_changes_nothing(width: int, row: float, col: float, positive: bool) -> None:
    click = Click(row, col, positive)
    (back,) = mirrored(mirrored([click], width), width)
    assert (back.row, back.positive) == (click.row, click.positive)
    assert back.col == pytest.approx(col, abs=1e-9)


def test_a_mirrored_pixel_is_the_pixel_of_the_mirrored_image() -> None:
    image = np.zeros((5, 8))
    image[2, 1] = 1
    (click,) = mirrored([Click(2, 1)], 8)
    assert image[:, ::-1][int(click.row), int(click.col)] == 1


@quick
@given(SIDE, SIDE, st.data())
def test_a_rectangle_grows_but_stays_inside_the_image(height: int, width: int, data: st.DataObject) -> None:
    rows = sorted(data.draw(st.integers(0, height - 1)) for _ in range(2))
    cols = sorted(data.draw(st.integers(0, width - 1)) for _ in range(2))
    roi = Roi(rows[0], rows[1], cols[0], cols[1])
    grown = expanded_roi(roi, height, width)
    assert 0 <= grown.row_min <= roi.row_min <= roi.row_max <= grown.row_max < height
    assert 0 <= grown.col_min <= roi.col_min <= roi.col_max <= grown.col_max < width


@quick
@given(rois(), rois())
def test_overlap_is_a_share_and_does_not_depend_on_the_order(first: Roi, second: Roi) -> None:
    assert roi_overlap(first, first) == 1
    assert 0 <= roi_overlap(first, second) == roi_overlap(second, first) <= 1


@quick
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_bounding_rectangle_holds_the_mask_and_is_tight(
    height: int, width: int, data: st.DataObject
) -> None:
    mask = np.zeros((height, width), bool)
    points = data.draw(st.lists(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)), min_size=1))
    for point in points:
        mask[point] = True
    box = mask[bounding_roi(mask).slices]
    assert box.sum() == mask.sum()
    assert all(edge.any() for edge in (box[0], box[-1], box[:, 0], box[:, -1]))


@pytest.mark.parametrize(
    ("row", "col", "inside"),
    [(10, 20, True), (18, 28, True), (19, 20, False), (10, 29, False), (9, 20, False), (10, 19, False)],
)
def test_the_last_row_and_column_of_a_rectangle_count_as_outside(row: int, col: int, inside: bool) -> None:
    assert Roi(10, 19, 20, 29).holds(Click(row, col)) == inside


def disc(height: int, width: int, row: int, col: int, radius: int) -> NDArray[np.bool_]:
    rows, cols = np.indices((height, width))
    inside: NDArray[np.bool_] = (rows - row) ** 2 + (cols - col) ** 2 <= radius**2
    return inside


def test_an_empty_mask_looks_at_the_whole_image() -> None:
    assert next_roi(np.zeros((600, 800), bool), [Click(3, 3)], None) == Roi(0, 599, 0, 799)


def test_surroundings_are_the_mask_times_1_4_with_halves_rounded_to_even() -> None:
    mask = disc(600, 800, 300, 400, 100)
    assert next_roi(mask, [Click(300, 400)], None) == Roi(159, 441, 259, 541)
    assert expanded_roi(Roi(100, 299, 100, 300), 600, 800) == Roi(60, 340, 59, 341)


def test_small_masks_get_surroundings_of_200_px() -> None:
    mask = disc(600, 800, 300, 400, 5)
    assert next_roi(mask, [Click(300, 400)], None) == Roi(200, 400, 300, 500)
    assert next_roi(mask, [Click(300, 400)], None, min_crop_px=100) == Roi(250, 350, 350, 450)


def test_positive_clicks_belong_to_the_mask_and_negative_ones_do_not() -> None:
    mask = disc(600, 800, 300, 400, 100)
    alone = next_roi(mask, [Click(300, 400)], None)
    assert next_roi(mask, [Click(300, 400), Click(590, 790, False)], None) == alone
    assert next_roi(mask, [Click(300, 400), Click(590, 790)], None).row_max == 599


def test_the_rectangle_in_use_is_kept_until_it_differs_much() -> None:
    mask, current = disc(600, 800, 300, 400, 100), Roi(150, 450, 250, 550)
    assert next_roi(mask, [Click(300, 400)], current) == current
    far = Roi(0, 599, 0, 799)
    assert next_roi(mask, [Click(300, 400)], far) == Roi(159, 441, 259, 541)


def test_a_positive_click_outside_gives_up_the_rectangle_in_use() -> None:
    mask, current = disc(600, 800, 300, 400, 100), Roi(150, 450, 250, 550)
    moved = next_roi(mask, [Click(300, 400), Click(460, 400)], current)
    assert moved != current
    assert moved.holds(Click(460, 400))
    assert next_roi(mask, [Click(300, 400), Click(460, 400, False)], current) == current


def test_a_wider_look_holds_the_narrower_one():
    mask_hw = np.zeros((900, 1200), bool)
    mask_hw[300:500, 400:700] = True
    narrow, wide = (next_roi(mask_hw, [], None, expansion=expansion) for expansion in (1.4, 2.0))
    assert (narrow.height, narrow.width) == (281, 421)
    assert wide.row_min < narrow.row_min
    assert wide.col_max > narrow.col_max
