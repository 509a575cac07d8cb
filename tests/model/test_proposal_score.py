"""The score of a mask that nobody clicked: what raises it, and what it is where nothing is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from model.proposal_score import ProposalFeatures, proposal_features, score_of
from model.proposals import ProposalLimits
from model.reference_comparison import ReferenceComparison
from model.similarity_map import SimilarityMap
from model.types import Box, MaskResult

SHAPE = (20, 20)
FOUND = ProposalFeatures(
    alone=0.92, confidence=0.92, log_area=-3.42, coverage=0.59, consensus=0.84, alone_estimate=0.97
)
"""The median of masks with an IoU of .7 or more, on 64 photographs of the development share."""
ABSENT = ProposalFeatures(
    alone=0.7, confidence=0.82, log_area=-3.94, coverage=0.46, consensus=0.27, alone_estimate=-0.57
)
"""The median of masks of labels that are not on the photograph. The network expects .52 of these masks."""


def result(rows: slice, expected: float | None = None, probability: float = 0.9) -> MaskResult:
    mask_hw = np.zeros(SHAPE, bool)
    mask_hw[rows] = True
    return MaskResult(mask_hw, probability * mask_hw.astype(np.float32), Box.whole(*SHAPE), expected)


def similarity() -> SimilarityMap:
    comparison = ReferenceComparison(np.zeros((2, 2, 12), np.float32), np.full((2, 2, 1), 0.5, np.float32))
    return SimilarityMap.of(comparison, np.zeros(SHAPE, np.float32))


def test_masks_of_labels_that_are_not_there_score_below_what_is_proposed_and_good_ones_well_above():
    assert score_of(FOUND) == pytest.approx(0.64, abs=0.05)
    assert score_of(ABSENT) == pytest.approx(0.15, abs=0.05)
    assert score_of(ABSENT) < ProposalLimits().min_score


@pytest.mark.parametrize("name", ["alone", "confidence", "coverage", "consensus", "alone_estimate"])
def test_a_feature_that_supports_a_mask_raises_its_score(name: str):
    more = dataclasses.replace(FOUND, **{name: getattr(FOUND, name) + 0.2})
    assert score_of(more) > score_of(FOUND)


@pytest.mark.parametrize("extreme", [-1000.0, 1000.0])
def test_any_features_give_a_score_between_0_and_1(extreme: float):
    features = ProposalFeatures(*[extreme] * len(dataclasses.fields(ProposalFeatures)))
    assert 0 <= score_of(features) <= 1


def test_a_mask_is_measured_against_the_reference_and_the_other_masks():
    mask, other, alone = result(slice(0, 10), 0.8), result(slice(5, 15), 0.6), result(slice(0, 5), 0.8)
    features = proposal_features(mask, [other, alone], similarity(), alone)
    assert features.alone == pytest.approx(0.45)
    assert features.confidence == pytest.approx(0.9)
    assert features.log_area == pytest.approx(np.log(0.5))
    assert features.coverage == pytest.approx(0.5)
    assert features.consensus == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert features.alone_estimate == pytest.approx(np.log(4))


def test_a_network_that_expects_nothing_is_taken_at_its_confidence():
    mask = result(slice(0, 10), None, probability=0.75)
    assert proposal_features(mask, [], similarity(), mask).alone_estimate == pytest.approx(np.log(3))


def test_an_empty_mask_of_the_reference_alone_says_that_nothing_is_there():
    features = proposal_features(result(slice(0, 10)), [], similarity(), result(slice(0, 0)))
    assert features.alone_estimate == pytest.approx(np.log(0.001 / 0.999))
    assert (features.alone, features.consensus) == (0, 0)


def test_a_network_that_is_entirely_sure_gives_finite_features():
    mask = result(slice(0, 10), 1.0)
    assert np.isfinite(dataclasses.astuple(proposal_features(mask, [mask], similarity(), mask))).all()
