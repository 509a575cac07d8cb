"""Proposals: the most similar locations become masks with a score, and of overlapping masks the best one stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from model.masks import intersection_over_union
from model.network.config import NetworkConfig
from model.predictor import RefCutPredictor
from model.predictor_config import SERVING
from model.proposal_score import ProposalFeatures, score_of
from model.proposals import Proposal, ProposalLimits, find_candidates, propose, without_overlaps
from model.similarity_map import SimilarityMap
from model.types import Box, Click, MaskResult
from tests.support.synthetic import TINY_FROZEN, TINY_READING, random_network

EVERYTHING = ProposalLimits(min_score=0)
NOTHING_SAID = ProposalFeatures(*[0.0] * len(dataclasses.fields(ProposalFeatures)))


def proposal(score: float, rows: slice) -> Proposal:
    mask_hw = np.zeros((20, 20), bool)
    mask_hw[rows] = True
    return Proposal(MaskResult(mask_hw, mask_hw.astype(np.float32), Box.whole(20, 20)), NOTHING_SAID, score)


def predictor_of(config: NetworkConfig) -> RefCutPredictor:
    """A random network on noise, with a reference."""
    settings = SERVING.__class__(network_px=112, second_look=True, resampling="area", threshold=0.2)
    predictor = RefCutPredictor(random_network(config, 0), settings)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 80, 120, 3), np.uint8)
    mask_hw = np.zeros((80, 120), bool)
    mask_hw[20:50, 30:70] = True
    predictor.set_image(pixels[0])
    predictor.set_reference(predictor.encode_reference(pixels[1], mask_hw, ~mask_hw))
    return predictor


@pytest.fixture
def predictor() -> RefCutPredictor:
    return predictor_of(TINY_FROZEN)


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


def test_the_score_is_that_of_the_features_also_where_the_network_expects_an_iou_of_its_own():
    """What the network expects takes for granted that the click is on the label; nobody clicked."""
    candidates = find_candidates(predictor_of(TINY_READING), locations=3)
    assert candidates
    assert all(c.result.expected_iou is not None for c in candidates)
    assert [c.score for c in candidates] == [score_of(c.features) for c in candidates]


def test_a_mask_is_compared_with_all_others_that_were_tried(predictor):
    candidates = find_candidates(predictor, locations=3)
    assert candidates
    masks = [candidate.result.mask_hw for candidate in candidates]
    for number, candidate in enumerate(candidates):
        shared = [
            intersection_over_union(masks[number], other) for other in masks[:number] + masks[number + 1 :]
        ]
        assert candidate.features.consensus == pytest.approx(np.mean(shared) if shared else 0)


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


@pytest.fixture
def clicked(predictor: RefCutPredictor, monkeypatch: pytest.MonkeyPatch) -> list[Click]:
    """The clicks that the predictor gets; each gives a mask of 20 px around it, and the reference alone gives all."""
    given: list[Click] = []

    def predict(clicks: Sequence[Click]) -> MaskResult:
        mask_hw = np.ones((80, 120), bool)
        if clicks:
            given.extend(clicks)
            rows, columns = np.mgrid[:80, :120]
            mask_hw = (abs(rows - clicks[0].row) < 10) & (abs(columns - clicks[0].col) < 10)
        return MaskResult(mask_hw, mask_hw.astype(np.float32), Box.whole(80, 120))

    monkeypatch.setattr(predictor, "predict", predict)
    return given


def locations_at(monkeypatch: pytest.MonkeyPatch, *places: tuple[float, float]) -> None:
    monkeypatch.setattr(SimilarityMap, "clicks", lambda *_: [Click(row, col) for row, col in places])


def test_a_location_inside_the_mask_of_an_earlier_click_is_not_clicked(predictor, clicked, monkeypatch):
    locations_at(monkeypatch, (20, 20), (25, 25), (60, 90), (62, 95))
    candidates = find_candidates(predictor, locations=4)
    assert [(click.row, click.col) for click in clicked] == [(20, 20), (60, 90)]
    assert candidates
    assert len(candidates) == 3


def test_objects_apart_are_all_clicked_although_the_reference_alone_shows_them(
    predictor, clicked, monkeypatch
):
    places = [(20, 20), (20, 60), (60, 20), (60, 60)]
    locations_at(monkeypatch, *places)
    find_candidates(predictor, locations=4)
    assert [(click.row, click.col) for click in clicked] == places


@pytest.mark.usefixtures("clicked")
def test_it_stops_between_any_two_steps_of_the_network(predictor, monkeypatch):
    locations_at(monkeypatch, (20, 20), (20, 60), (60, 20), (60, 60))
    for steps in range(EVERYTHING.locations + 1):
        stop_after = iter([False] * steps + [True] * 9)
        assert propose(predictor, EVERYTHING, lambda stop_after=stop_after: next(stop_after)) is None
    stop_after = iter([False] * (EVERYTHING.locations + 1))
    assert propose(predictor, EVERYTHING, lambda: next(stop_after)) is not None
