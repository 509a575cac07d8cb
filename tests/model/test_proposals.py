from __future__ import annotations

import numpy as np
import pytest

from model.predictor import SERVING, MaskResult, RefCutPredictor
from model.proposals import Evidence, Proposal, ProposalLimits, find_candidates, propose, without_overlaps
from model.transforms import Roi
from tests.support.synthetic import TINY_FROZEN, random_network

EVERYTHING = ProposalLimits(min_score=0)
NOTHING_SAID = Evidence(0, 0, 0, 0, 0, 0, 0)


def proposal(score: float, rows: slice) -> Proposal:
    mask_hw = np.zeros((20, 20), bool)
    mask_hw[rows] = True
    return Proposal(MaskResult(mask_hw, mask_hw.astype(np.float32), Roi.whole(20, 20)), NOTHING_SAID, score)


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


def test_the_places_that_are_most_alike_are_clicked_and_every_mask_has_a_score(predictor):
    candidates = find_candidates(predictor, places=3)
    assert candidates is not None
    assert 1 <= len(candidates) <= 4
    assert all(c.result.mask_hw.shape == (80, 120) and c.result.mask_hw.any() for c in candidates)
    assert all(0 <= c.score <= 1 for c in candidates)


def test_proposals_are_the_surest_candidates_without_overlaps(predictor):
    proposals = propose(predictor, EVERYTHING)
    candidates = find_candidates(predictor, EVERYTHING.places)
    assert proposals
    assert candidates
    assert proposals[0].score == max(candidate.score for candidate in candidates)
    together = sum(found.result.mask_hw.astype(int) for found in proposals)
    smallest = min(np.count_nonzero(found.result.mask_hw) for found in proposals)
    assert np.count_nonzero(together > 1) < EVERYTHING.overlap * smallest * len(proposals)


def test_what_is_not_worth_showing_is_not_proposed(predictor):
    assert propose(predictor, ProposalLimits(min_score=1.0)) == []


def test_it_stops_between_any_two_steps_of_the_network(predictor):
    for steps in range(EVERYTHING.places + 1):
        asked = iter([False] * steps + [True] * 9)
        assert propose(predictor, EVERYTHING, lambda asked=asked: next(asked)) is None
    asked = iter([False] * (EVERYTHING.places + 1))
    assert propose(predictor, EVERYTHING, lambda: next(asked)) is not None
