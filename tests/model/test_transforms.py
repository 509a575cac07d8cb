"""Coordinate transforms: SimpleClick's ZoomIn, and the way there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.transforms import (
    Resampling,
    box_overlap,
    click_table,
    clicks_to_network,
    crop_image,
    crop_map,
    crop_mask,
    expanded_box,
    mirrored,
    next_crop,
    paste_map,
)
from model.types import Box, Click
from tests.support.synthetic import drawn_image

quick = settings(database=None, deadline=None, max_examples=60)
COORDINATE = st.floats(0, 4000, allow_nan=False)
SIDE = st.integers(1, 3000)


@st.composite
def rois(draw: st.DrawFn) -> Box:
    top, left = draw(st.integers(0, 2000)), draw(st.integers(0, 2000))
    return Box(top, top + draw(SIDE) - 1, left, left + draw(SIDE) - 1)


@quick
@given(rois(), COORDINATE, COORDINATE, st.sampled_from([336, 448, 672]))
def test_clicks_go_to_the_network_and_back(roi: Box, row: float, col: float, size_px: int) -> None:
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
def test_a_box_grows_but_stays_inside_the_image(height: int, width: int, data: st.DataObject) -> None:
    rows = sorted(data.draw(st.integers(0, height - 1)) for _ in range(2))
    cols = sorted(data.draw(st.integers(0, width - 1)) for _ in range(2))
    roi = Box(rows[0], rows[1], cols[0], cols[1])
    grown = expanded_box(roi, height, width)
    assert 0 <= grown.row_min <= roi.row_min <= roi.row_max <= grown.row_max < height
    assert 0 <= grown.col_min <= roi.col_min <= roi.col_max <= grown.col_max < width


@quick
@given(rois(), rois())
def test_overlap_is_a_share_and_does_not_depend_on_the_order(first: Box, second: Box) -> None:
    assert box_overlap(first, first) == 1
    assert 0 <= box_overlap(first, second) == box_overlap(second, first) <= 1


@pytest.mark.parametrize(
    ("row", "col", "inside"),
    [(10, 20, True), (18, 28, True), (19, 20, False), (10, 29, False), (9, 20, False), (10, 19, False)],
)
def test_the_last_row_and_column_of_a_box_count_as_outside(row: int, col: int, inside: bool) -> None:
    assert Box(10, 19, 20, 29).contains(Click(row, col)) == inside


@pytest.mark.parametrize(
    ("other", "covered"),
    [
        (Box(10, 19, 20, 29), True),
        (Box(12, 15, 22, 25), True),
        (Box(9, 19, 20, 29), False),
        (Box(10, 20, 20, 29), False),
        (Box(10, 19, 19, 29), False),
        (Box(10, 19, 20, 30), False),
    ],
)
def test_a_box_covers_another_one_if_no_pixel_of_it_lies_outside(other: Box, covered: bool) -> None:
    assert Box(10, 19, 20, 29).covers(other) == covered


def disc(height: int, width: int, row: int, col: int, radius: int) -> NDArray[np.bool_]:
    rows, cols = np.indices((height, width))
    inside: NDArray[np.bool_] = (rows - row) ** 2 + (cols - col) ** 2 <= radius**2
    return inside


def test_an_empty_mask_gives_the_whole_image_as_crop() -> None:
    assert next_crop(np.zeros((600, 800), bool), [Click(3, 3)], None) == Box(0, 599, 0, 799)


def test_a_crop_is_the_mask_times_1_4_with_halves_rounded_to_even() -> None:
    mask = disc(600, 800, 300, 400, 100)
    assert next_crop(mask, [Click(300, 400)], None) == Box(159, 441, 259, 541)
    assert expanded_box(Box(100, 299, 100, 300), 600, 800) == Box(60, 340, 59, 341)


def test_small_masks_get_a_crop_of_200_px() -> None:
    mask = disc(600, 800, 300, 400, 5)
    assert next_crop(mask, [Click(300, 400)], None) == Box(200, 400, 300, 500)
    assert next_crop(mask, [Click(300, 400)], None, min_crop_px=100) == Box(250, 350, 350, 450)


def test_positive_clicks_belong_to_the_mask_and_negative_ones_do_not() -> None:
    mask = disc(600, 800, 300, 400, 100)
    alone = next_crop(mask, [Click(300, 400)], None)
    assert next_crop(mask, [Click(300, 400), Click(590, 790, False)], None) == alone
    assert next_crop(mask, [Click(300, 400), Click(590, 790)], None).row_max == 599


def test_the_crop_in_use_is_kept_until_it_differs_much() -> None:
    mask, current = disc(600, 800, 300, 400, 100), Box(150, 450, 250, 550)
    assert next_crop(mask, [Click(300, 400)], current) == current
    far = Box(0, 599, 0, 799)
    assert next_crop(mask, [Click(300, 400)], far) == Box(159, 441, 259, 541)


def test_a_positive_click_outside_the_crop_in_use_replaces_it() -> None:
    mask, current = disc(600, 800, 300, 400, 100), Box(150, 450, 250, 550)
    moved = next_crop(mask, [Click(300, 400), Click(460, 400)], current)
    assert moved != current
    assert moved.contains(Click(460, 400))
    assert next_crop(mask, [Click(300, 400), Click(460, 400, False)], current) == current


def test_a_larger_expansion_contains_the_smaller_one():
    mask_hw = np.zeros((900, 1200), bool)
    mask_hw[300:500, 400:700] = True
    narrow, wide = (next_crop(mask_hw, [], None, expansion=expansion) for expansion in (1.4, 2.0))
    assert (narrow.height, narrow.width) == (281, 421)
    assert wide.row_min < narrow.row_min
    assert wide.col_max > narrow.col_max


SIZE = 28


@settings(database=None, deadline=None, max_examples=80)
@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_a_mask_of_one_pixel_never_vanishes(height: int, width: int, data: st.DataObject) -> None:
    mask = np.zeros((height, width), bool)
    mask[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = True
    assert crop_mask(mask, Box.whole(height, width), SIZE).sum() > 0


@pytest.mark.parametrize(("height", "width"), [(28, 28), (112, 56), (300, 421), (29, 1000)])
def test_a_shrunk_mask_keeps_its_share_of_the_picture(height: int, width: int) -> None:
    mask = drawn_image(height, width)[..., 0] > 128
    shares = crop_mask(mask, Box.whole(height, width), SIZE)
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert float(shares.mean()) == pytest.approx(mask.mean(), abs=1e-3)


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (90, 1), (57, 31), (300, 20)])
def test_even_masks_stay_even(height: int, width: int, value: bool) -> None:
    shares = crop_mask(np.full((height, width), value), Box.whole(height, width), SIZE)
    assert torch.allclose(shares, torch.full((1, 1, SIZE, SIZE), float(value)))


@pytest.mark.parametrize("resampling", ["aligned", "area"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (57, 31), (300, 20)])
def test_images_of_any_size_become_squares(height: int, width: int, resampling: Resampling) -> None:
    image = np.full((height, width, 3), (255, 51, 0), np.uint8)
    crop = crop_image(image, Box.whole(height, width), SIZE, resampling)
    assert crop.shape == (1, 3, SIZE, SIZE)
    assert torch.allclose(crop[0, :, 5, 5], torch.tensor([1.0, 0.2, 0.0]))


def test_a_crop_of_the_networks_size_is_taken_pixel_by_pixel_and_pasted_back() -> None:
    probability = np.random.default_rng(0).random((60, 70)).astype(np.float32)
    roi = Box(11, 10 + SIZE, 20, 19 + SIZE)
    crop = crop_map(probability, roi, SIZE)
    assert np.array_equal(crop[0, 0].numpy(), probability[roi.slices])
    back = paste_map(crop, roi, 60, 70)
    assert np.array_equal(back[roi.slices], probability[roi.slices])
    back[roi.slices] = 0
    assert not back.any()


def test_corners_stay_on_corners_on_the_way_there_and_back() -> None:
    probability = np.random.default_rng(0).random((45, 83)).astype(np.float32)
    roi = Box(3, 40, 5, 77)
    back = paste_map(crop_map(probability, roi, SIZE), roi, 45, 83)
    for corner in ((3, 5), (3, 77), (40, 5), (40, 77)):
        assert back[corner] == pytest.approx(probability[corner], abs=1e-6)


def test_clicks_have_slots_by_sign_in_the_order_of_clicking() -> None:
    table = click_table([Click(1, 2), Click(3, 4, False), Click(5.5, 6)])
    assert table[0].tolist() == [[1, 2, 0], [5.5, 6, 1], [3, 4, 0], [-1, -1, -1]]
    assert click_table([])[0].tolist() == [[-1, -1, -1], [-1, -1, -1]]
