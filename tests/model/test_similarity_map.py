"""Where an image looks like the reference: places to click in the image's frame, and what a mask covers."""

from __future__ import annotations

import numpy as np
import pytest

from model.reference_comparison import ReferenceComparison
from model.similarity_map import NEAREST, NEAREST_DIFFERENCE, NEIGHBOURS, SimilarityMap, best_locations


def comparison_of(channels: np.ndarray, cosines: np.ndarray | None = None) -> ReferenceComparison:
    """A comparison with a reference of which no patch is inside the mask, unless cosines are given."""
    none = np.zeros((*channels.shape[:2], 0), np.float32)
    return ReferenceComparison(channels, none if cosines is None else cosines)


def test_the_best_locations_come_first_and_keep_their_distance():
    values = np.zeros((10, 12), np.float32)
    values[2, 3], values[2, 4], values[8, 9] = 3, 2, 1
    locations = best_locations(values, 3)
    assert locations[:2] == [(2, 3), (8, 9)]
    for number, (row, column) in enumerate(locations):
        for other_row, other_column in locations[:number]:
            assert max(abs(row - other_row), abs(column - other_column)) > NEIGHBOURS


def test_a_small_map_has_no_more_locations_than_fit():
    assert best_locations(np.ones((2, 2), np.float32), 4) == [(0, 0)]


def test_similarity_is_the_sum_of_the_probability_and_both_comparisons():
    channels = np.zeros((2, 4, 12), np.float32)
    channels[0, 1, NEAREST] = 0.5
    channels[1, 2, NEAREST_DIFFERENCE] = 0.25
    probability_hw = np.zeros((20, 40), np.float32)
    probability_hw[10:, 30:] = 1
    similarity = SimilarityMap.of(comparison_of(channels), probability_hw)
    assert similarity.grid == (2, 4)
    assert np.array_equal(similarity.total, np.array([[0, 0.5, 0, 0], [0, 0, 0.25, 1]], np.float32))


def test_clicks_fall_in_the_middle_of_the_patches_in_the_images_frame():
    channels = np.zeros((3, 5, 12), np.float32)
    channels[2, 4, NEAREST] = 1
    (click,) = SimilarityMap.of(comparison_of(channels), np.zeros((30, 100), np.float32)).clicks(1, 30, 100)
    assert (click.row, click.col, click.positive) == (25, 90, True)


def test_without_similarity_channels_the_probability_gives_the_locations():
    probability_hw = np.zeros((30, 40), np.float32)
    probability_hw[7, 31] = 0.9
    (click,) = SimilarityMap.of(None, probability_hw).clicks(1, 30, 40)
    assert (click.row, click.col) == (7, 31)


def test_a_reference_is_covered_as_well_as_its_patches_find_their_like_inside_the_mask():
    cosines = np.zeros((1, 3, 2), np.float32)
    cosines[0, :, 0] = 0.2, 0.9, 0.1
    cosines[0, :, 1] = 0.4, 0.3, 0.8
    channels = np.zeros((1, 3, 12), np.float32)
    similarity = SimilarityMap.of(comparison_of(channels, cosines), np.zeros((10, 30), np.float32))
    mask_hw = np.zeros((10, 30), bool)
    mask_hw[:, :20] = True
    assert similarity.coverage(mask_hw) == pytest.approx((0.9 + 0.4) / 2)
    mask_hw[:, 20:] = True
    assert similarity.coverage(mask_hw) == pytest.approx((0.9 + 0.8) / 2)


def test_a_mask_smaller_than_half_a_patch_is_compared_by_the_patch_that_it_covers_most():
    cosines = np.array([[[0.2], [0.9]]], np.float32)
    similarity = SimilarityMap.of(
        comparison_of(np.zeros((1, 2, 12), np.float32), cosines), np.zeros((10, 20), np.float32)
    )
    mask_hw = np.zeros((10, 20), bool)
    mask_hw[3, 8:12] = True
    mask_hw[3, 12:14] = True
    assert similarity.coverage(mask_hw) == pytest.approx(0.9)


def test_a_reference_without_a_positive_mask_is_not_covered():
    similarity = SimilarityMap.of(
        comparison_of(np.zeros((1, 2, 12), np.float32)), np.zeros((10, 20), np.float32)
    )
    assert similarity.coverage(np.ones((10, 20), bool)) == 0
