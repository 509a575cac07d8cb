"""Proposals: the most similar locations become masks with a score, and of overlapping masks the best one stays."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from model.predictor import RefCutPredictor
from model.predictor_config import SERVING
from model.proposals import (
    NEAREST,
    NEAREST_DIFFERENCE,
    NEIGHBOURS,
    Proposal,
    ProposalFeatures,
    ProposalLimits,
    SimilarityMap,
    best_locations,
    expected_iou,
    find_candidates,
    propose,
    without_overlaps,
)
from model.types import Box, MaskResult
from tests.support.synthetic import TINY_FROZEN, random_network

EVERYTHING = ProposalLimits(min_score=0)
NOTHING_SAID = ProposalFeatures(0, 0, 0, 0, 0, 0, 0)


def proposal(score: float, rows: slice) -> Proposal:
    mask_hw = np.zeros((20, 20), bool)
    mask_hw[rows] = True
    return Proposal(MaskResult(mask_hw, mask_hw.astype(np.float32), Box.whole(20, 20)), NOTHING_SAID, score)


@pytest.fixture
def predictor() -> RefCutPredictor:
    """A random network on noise, with a reference."""
    settings = SERVING.__class__(network_px=112, second_look=True, resampling="area", threshold=0.2)
    predictor = RefCutPredictor(random_network(TINY_FROZEN, 0), settings)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 80, 120, 3), np.uint8)
    mask_hw = np.zeros((80, 120), bool)
    mask_hw[20:50, 30:70] = True
    predictor.set_image(pixels[0])
    predictor.set_reference(predictor.encode_reference(pixels[1], mask_hw, ~mask_hw))
    return predictor


def test_masks_that_do_not_overlap_stay_and_the_surest_comes_first():
    one, two = proposal(0.4, slice(0, 5)), proposal(0.8, slice(10, 15))
    assert without_overlaps([one, two], 0.5) == [two, one]


def test_of_masks_that_overlap_the_surest_stays_also_when_it_is_a_piece_of_the_other():
    part, whole = proposal(0.8, slice(0, 5)), proposal(0.4, slice(0, 20))
    assert without_overlaps([whole, part], 0.5) == [part]
    assert without_overlaps([proposal(0.9, slice(0, 20)), part], 0.5)[0].score == 0.9


def test_the_most_similar_locations_are_clicked_and_every_mask_has_a_score(predictor):
    candidates = find_candidates(predictor, locations=3)
    assert candidates is not None
    assert 1 <= len(candidates) <= 4
    assert all(c.result.mask_hw.shape == (80, 120) and c.result.mask_hw.any() for c in candidates)
    assert all(0 <= c.score <= 1 for c in candidates)


def test_proposals_are_the_surest_candidates_without_overlaps(predictor):
    proposals = propose(predictor, EVERYTHING)
    candidates = find_candidates(predictor, EVERYTHING.locations)
    assert proposals
    assert candidates
    assert proposals[0].score == max(candidate.score for candidate in candidates)
    together = sum(found.result.mask_hw.astype(int) for found in proposals)
    smallest = min(np.count_nonzero(found.result.mask_hw) for found in proposals)
    assert np.count_nonzero(together > 1) < EVERYTHING.overlap * smallest * len(proposals)


def test_masks_with_a_low_score_are_not_proposed(predictor):
    assert propose(predictor, ProposalLimits(min_score=1.0)) == []


def test_it_stops_between_any_two_steps_of_the_network(predictor):
    for steps in range(EVERYTHING.locations + 1):
        stop_after = iter([False] * steps + [True] * 9)
        assert propose(predictor, EVERYTHING, lambda stop_after=stop_after: next(stop_after)) is None
    stop_after = iter([False] * (EVERYTHING.locations + 1))
    assert propose(predictor, EVERYTHING, lambda: next(stop_after)) is not None


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
    similarity = SimilarityMap.of(channels, probability_hw)
    assert similarity.grid == (2, 4)
    assert np.array_equal(similarity.total, np.array([[0, 0.5, 0, 0], [0, 0, 0.25, 1]], np.float32))


def test_clicks_fall_in_the_middle_of_the_patches_in_the_images_frame():
    channels = np.zeros((3, 5, 12), np.float32)
    channels[2, 4, NEAREST] = 1
    (click,) = SimilarityMap.of(channels, np.zeros((30, 100), np.float32)).clicks(1, 30, 100)
    assert (click.row, click.col, click.positive) == (25, 90, True)


def test_inside_a_mask_the_means_are_weighted_by_what_it_covers():
    channels = np.zeros((1, 2, 12), np.float32)
    channels[0, :, NEAREST] = 0.2, 0.8
    similarity = SimilarityMap.of(channels, np.zeros((10, 20), np.float32))
    mask_hw = np.zeros((10, 20), bool)
    mask_hw[:, 5:20] = True
    assert similarity.inside(mask_hw)[0] == pytest.approx((5 * 0.2 + 10 * 0.8) / 15)


def test_without_similarity_channels_the_probability_gives_the_locations():
    probability_hw = np.zeros((30, 40), np.float32)
    probability_hw[7, 31] = 0.9
    (click,) = SimilarityMap.of(None, probability_hw).clicks(1, 30, 40)
    assert (click.row, click.col) == (7, 31)


MIDDLING = ProposalFeatures(
    nearest=0.45, difference=0.05, alone=0.6, agreement=0.5, stability=0.6, confidence=0.75, log_area=-3.5
)


def test_the_score_of_a_middling_mask_is_neither_sure_nor_nothing():
    assert 0.1 < expected_iou(MIDDLING) < 0.8


@pytest.mark.parametrize("name", ["nearest", "alone", "agreement", "stability", "confidence"])
def test_a_feature_that_supports_a_mask_raises_its_score(name: str):
    more = dataclasses.replace(MIDDLING, **{name: getattr(MIDDLING, name) + 0.2})
    assert expected_iou(more) > expected_iou(MIDDLING)


@pytest.mark.parametrize("extreme", [-1000.0, 1000.0])
def test_any_features_give_a_score_between_0_and_1(extreme: float):
    features = ProposalFeatures(*[extreme] * len(dataclasses.fields(ProposalFeatures)))
    assert 0 <= expected_iou(features) <= 1
