"""Proposals: objects of a reference's label on an image that nobody has clicked.

1. Compare every patch with the reference, and take the patches that are most similar (`SimilarityMap`).
2. Click each of these locations that is in no mask of such a click yet, and segment.
3. Estimate the IoU of each mask (`model.proposal_score`).
4. Drop masks with a low estimate; of overlapping masks keep the one with the highest (`without_overlaps`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model.predictor import RefCutPredictor
from model.proposal_score import ProposalFeatures, proposal_features, score_of
from model.similarity_map import SimilarityMap
from model.types import BoolMask, MaskResult


@dataclass(frozen=True)
class ProposalLimits:
    """Limits of the proposals for one image.

    Attributes:
        locations: Largest number of locations that are clicked.
        min_score: Masks with a lower estimated IoU are not proposed.
        overlap: If a mask lies within another by this share of the smaller one, only the better one stays.
    """

    locations: int = 4
    min_score: float = 0.3
    overlap: float = 0.5


@dataclass(frozen=True)
class Proposal:
    """A proposed mask.

    Attributes:
        result: The mask.
        features: What its score is estimated from.
        score: Estimated IoU, 0..1.
    """

    result: MaskResult
    features: ProposalFeatures
    score: float


def propose(
    predictor: RefCutPredictor,
    limits: ProposalLimits | None = None,
    must_stop: Callable[[], bool] = lambda: False,
) -> list[Proposal] | None:
    """Find the objects of the reference's label on the predictor's image.

    Args:
        predictor: With image and reference set.
        limits: None takes the defaults.
        must_stop: Called before each step of the network, to yield to more urgent work.

    Returns:
        Masks with the highest estimate first, or None if `must_stop` returned true.
    """
    limits = limits or ProposalLimits()
    candidates = find_candidates(predictor, limits.locations, must_stop)
    if candidates is None:
        return None
    wanted = [candidate for candidate in candidates if candidate.score >= limits.min_score]
    return without_overlaps(wanted, limits.overlap)


def find_candidates(
    predictor: RefCutPredictor, locations: int, must_stop: Callable[[], bool] = lambda: False
) -> list[Proposal] | None:
    """Segment from the reference alone, and from each location that is similar to it.

    A location inside the mask of an earlier click is not clicked: on the object of the first click, further clicks change
    nothing on average.

    Args:
        predictor: With image and reference set.
        locations: Largest number of locations that are clicked.
        must_stop: As for `propose`.

    Returns:
        Every mask that is not empty, that of the reference alone first; None if `must_stop` returned true.
    """
    if must_stop():
        return None
    alone = predictor.predict([])
    similarity = SimilarityMap.of(predictor.reference_comparison(), alone.probability_hw)
    clicked: list[MaskResult] = []
    for click in similarity.clicks(locations, *predictor.image_size):
        if any(result.mask_hw[int(click.row), int(click.col)] for result in clicked):
            continue
        if must_stop():
            return None
        clicked.append(predictor.predict([click]))
    found = [result for result in (alone, *clicked) if result.mask_hw.any()]
    candidates = []
    for result in found:
        others = [other for other in found if other is not result]
        features = proposal_features(result, others, similarity, alone)
        candidates.append(Proposal(result, features, score_of(features)))
    return candidates


def without_overlaps(candidates: Sequence[Proposal], overlap: float) -> list[Proposal]:
    """Of masks that overlap, keep the one with the highest score.

    Args:
        candidates: Masks in any order.
        overlap: Two masks overlap if they share at least this part of the smaller one.

    Returns:
        The kept masks, the highest score first.
    """
    kept: list[Proposal] = []
    for candidate in sorted(candidates, key=lambda one: -one.score):
        if all(_share(candidate.result.mask_hw, other.result.mask_hw) < overlap for other in kept):
            kept.append(candidate)
    return kept


def _share(first_hw: BoolMask, second_hw: BoolMask) -> float:
    """Share of the smaller of two masks that lies in the other. Neither mask is empty."""
    smaller = min(np.count_nonzero(first_hw), np.count_nonzero(second_hw))
    return np.count_nonzero(first_hw & second_hw) / smaller
