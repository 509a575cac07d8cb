"""The score of a mask that nobody has clicked: the IoU that it can be expected to have with an object of the label.

What the network expects of its mask is not enough: it takes for granted that the click lies on the label, and here the
click is a guess. `ProposalFeatures` are what else can be known; a logistic function of them is the score. Its constants
are fitted by `python -m benchmarks.prelabel_score --fit`, on labels that are on a photograph and on labels that are not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.masks import intersection_over_union
from model.similarity_map import SimilarityMap
from model.types import MaskResult

MOST_SURE = 0.999
"""An estimate counts as at most this, and as at least 1 minus this."""


@dataclass(frozen=True)
class ProposalFeatures:
    """What can be known about a mask without ground truth.

    Attributes:
        alone: Mean probability in the mask without a click.
        confidence: Mean probability in the mask.
        log_area: Natural logarithm of the mask's share of the image.
        coverage: `SimilarityMap.coverage` of the mask.
        consensus: Mean IoU with the other masks that were tried for the label.
        alone_estimate: Log odds of the IoU that the network expects of the mask without a click; those of its confidence
            if the network expects none.
    """

    alone: float
    confidence: float
    log_area: float
    coverage: float
    consensus: float
    alone_estimate: float


def proposal_features(
    result: MaskResult, others: Sequence[MaskResult], similarity: SimilarityMap, alone: MaskResult
) -> ProposalFeatures:
    """Features of a mask that is not empty.

    Args:
        result: The mask.
        others: The other masks that were tried for the label; none is empty.
        similarity: Map of the image.
        alone: Result of the reference alone, without a click.
    """
    mask_hw = result.mask_hw
    shared = [intersection_over_union(other.mask_hw, mask_hw) for other in others]
    return ProposalFeatures(
        alone=float(alone.probability_hw[mask_hw].mean()),
        confidence=_confidence(result),
        log_area=float(np.log(mask_hw.mean())),
        coverage=similarity.coverage(mask_hw),
        consensus=sum(shared) / len(shared) if shared else 0.0,
        alone_estimate=_estimate(alone),
    )


def _confidence(result: MaskResult) -> float:
    """Mean probability in a mask; 0 if it is empty."""
    inside = result.probability_hw[result.mask_hw]
    return float(inside.mean()) if inside.size else 0.0


def _estimate(result: MaskResult) -> float:
    """Log odds of the IoU that the network expects, or of the confidence."""
    share = _confidence(result) if result.expected_iou is None else result.expected_iou
    within = min(max(share, 1 - MOST_SURE), MOST_SURE)
    return math.log(within / (1 - within))


BIAS = -7.32
WEIGHTS = ProposalFeatures(
    alone=2.2,
    confidence=2.831,
    log_area=-0.207,
    coverage=1.839,
    consensus=1.265,
    alone_estimate=0.442,
)


def score_of(features: ProposalFeatures) -> float:
    """Estimated IoU of a mask with an object of the label, 0..1; 0 is also what a label has that is not there."""
    pairs = zip(dataclasses.astuple(WEIGHTS), dataclasses.astuple(features), strict=True)
    # The logistic function, in a form that never overflows.
    return 0.5 + 0.5 * math.tanh(0.5 * (BIAS + sum(weight * value for weight, value in pairs)))
