"""Objects of a reference's label on an image that nobody has clicked on.

The places that look most like the reference become clicks, the predictor makes masks of them, and of masks that overlap
the surest stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model.array_types import BoolMask
from model.expected_iou import expected_iou
from model.mask_evidence import Evidence, evidence_for
from model.places import Likeness
from model.predictor import MaskResult, RefCutPredictor


@dataclass(frozen=True)
class ProposalLimits:
    """places: clicks that are tried on an image. min_score: masks of a lower expected IoU are not proposed.

    overlap: of two masks of which the smaller lies within the other by this share, the surer one stays.
    """

    places: int = 4
    min_score: float = 0.3
    overlap: float = 0.5


@dataclass(frozen=True)
class Proposal:
    """A mask that nobody asked for. score: the IoU to expect of it, 0..1."""

    result: MaskResult
    evidence: Evidence
    score: float


def propose(
    predictor: RefCutPredictor,
    limits: ProposalLimits | None = None,
    must_stop: Callable[[], bool] = lambda: False,
) -> list[Proposal] | None:
    """The objects on the predictor's image, the surest first; its reference must be set.

    must_stop: asked before each step of the network; true gives None.
    """
    limits = limits or ProposalLimits()
    candidates = find_candidates(predictor, limits.places, must_stop)
    if candidates is None:
        return None
    wanted = [candidate for candidate in candidates if candidate.score >= limits.min_score]
    return without_overlaps(wanted, limits.overlap)


def find_candidates(
    predictor: RefCutPredictor, places: int, must_stop: Callable[[], bool] = lambda: False
) -> list[Proposal] | None:
    """Every mask that was tried and is not empty, in the order of trying: that of the reference alone first."""
    if must_stop():
        return None
    alone = predictor.predict([])
    likeness = Likeness.of(predictor.reference_channels(), alone.probability_hw)
    results = [alone]
    for click in likeness.clicks(places, *predictor.image_size):
        if must_stop():
            return None
        results.append(predictor.predict([click]))
    found = [(result, evidence_for(result, likeness, alone)) for result in results if result.mask_hw.any()]
    return [Proposal(result, evidence, expected_iou(evidence)) for result, evidence in found]


def without_overlaps(candidates: Sequence[Proposal], overlap: float) -> list[Proposal]:
    """The surest of those that share `overlap` of the smaller one's pixels, surest first."""
    kept: list[Proposal] = []
    for candidate in sorted(candidates, key=lambda one: -one.score):
        if all(_share(candidate.result.mask_hw, other.result.mask_hw) < overlap for other in kept):
            kept.append(candidate)
    return kept


def _share(first_hw: BoolMask, second_hw: BoolMask) -> float:
    """Share of the smaller of two masks, none of them empty, that lies in the other."""
    smaller = min(np.count_nonzero(first_hw), np.count_nonzero(second_hw))
    return np.count_nonzero(first_hw & second_hw) / smaller
