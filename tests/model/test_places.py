from __future__ import annotations

import numpy as np
import pytest

from model.proposals import NEAREST, NEAREST_DIFFERENCE, NEIGHBOURS, Likeness, best_places


def test_the_best_places_come_first_and_keep_their_distance():
    values = np.zeros((10, 12), np.float32)
    values[2, 3], values[2, 4], values[8, 9] = 3, 2, 1
    places = best_places(values, 3)
    assert places[:2] == [(2, 3), (8, 9)]
    for number, (row, column) in enumerate(places):
        for other_row, other_column in places[:number]:
            assert max(abs(row - other_row), abs(column - other_column)) > NEIGHBOURS


def test_a_small_map_has_no_more_places_than_fit():
    assert best_places(np.ones((2, 2), np.float32), 4) == [(0, 0)]


def test_likeness_is_what_the_network_and_both_comparisons_say_together():
    channels = np.zeros((2, 4, 12), np.float32)
    channels[0, 1, NEAREST] = 0.5
    channels[1, 2, NEAREST_DIFFERENCE] = 0.25
    probability_hw = np.zeros((20, 40), np.float32)
    probability_hw[10:, 30:] = 1
    likeness = Likeness.of(channels, probability_hw)
    assert likeness.grid == (2, 4)
    assert np.array_equal(likeness.total, np.array([[0, 0.5, 0, 0], [0, 0, 0.25, 1]], np.float32))


def test_clicks_fall_in_the_middle_of_the_patches_in_the_images_frame():
    channels = np.zeros((3, 5, 12), np.float32)
    channels[2, 4, NEAREST] = 1
    (click,) = Likeness.of(channels, np.zeros((30, 100), np.float32)).clicks(1, 30, 100)
    assert (click.row, click.col, click.positive) == (25, 90, True)


def test_inside_a_mask_the_means_are_weighted_by_what_it_covers():
    channels = np.zeros((1, 2, 12), np.float32)
    channels[0, :, NEAREST] = 0.2, 0.8
    likeness = Likeness.of(channels, np.zeros((10, 20), np.float32))
    mask_hw = np.zeros((10, 20), bool)
    mask_hw[:, 5:20] = True
    assert likeness.inside(mask_hw)[0] == pytest.approx((5 * 0.2 + 10 * 0.8) / 15)


def test_a_network_that_does_not_compare_is_asked_alone():
    probability_hw = np.zeros((30, 40), np.float32)
    probability_hw[7, 31] = 0.9
    (click,) = Likeness.of(None, probability_hw).clicks(1, 30, 40)
    assert (click.row, click.col) == (7, 31)
