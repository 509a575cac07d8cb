"""Proposals: objects of a reference's label on an image that nobody has clicked.

1. Compare every patch with the reference, and take the patches that are most similar (`SimilarityMap`).
2. Click each of these locations, and segment.
3. Estimate the IoU of each mask: the network's own estimate, or features that need no ground truth
   (`ProposalFeatures`, `expected_iou`) for a network that makes none.
4. Drop masks with a low estimate; of overlapping masks keep the one with the highest (`without_overlaps`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from model.masks import intersection_over_union
from model.predictor import RefCutPredictor
from model.types import BoolMask, Click, MaskResult

NEAREST = 2
NEAREST_DIFFERENCE = 9
"""Index of a channel of `model.network.similarity.reference_channels`."""
NEIGHBOURS = 2
"""Distance in patches within which there is no second location."""


@dataclass(frozen=True)
class SimilarityMap:
    """How similar each patch of an image is to the reference. All maps are float32 (rows, columns).

    Attributes:
        nearest: Mean cosine to the nearest patches inside the reference's mask.
        difference: How much larger that is than the mean cosine to the nearest patches inside the negative mask.
        alone: Probability without a click, from the reference alone.
    """

    nearest: NDArray[np.float32]
    difference: NDArray[np.float32]
    alone: NDArray[np.float32]

    @classmethod
    def of(cls, channels: NDArray[np.float32] | None, probability_hw: NDArray[np.float32]) -> SimilarityMap:
        """Make the map of an image.

        Args:
            channels: `RefCutPredictor.reference_channels()`, (rows, columns, 12). None for a network without
                similarity channels: the map then has the size of the image.
            probability_hw: Probability that the reference alone gives, without a click, (H, W).
        """
        if channels is None:
            nothing = np.zeros_like(probability_hw)
            return cls(nothing, nothing, probability_hw)
        rows, columns, _ = channels.shape
        alone = cv2.resize(probability_hw, (columns, rows), interpolation=cv2.INTER_AREA)
        return cls(channels[..., NEAREST], channels[..., NEAREST_DIFFERENCE], np.asarray(alone, np.float32))

    @property
    def total(self) -> NDArray[np.float32]:
        """Sum of the three maps. On training images, no single map has its maximum on the label more often."""
        return self.nearest + self.difference + self.alone

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.alone.shape[0], self.alone.shape[1]

    def inside(self, mask_hw: BoolMask) -> tuple[float, float]:
        """Means of `nearest` and `difference` over a mask, bool (H, W), that is not empty."""
        rows, columns = self.grid
        share = cv2.resize(mask_hw.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        total = float(share.sum())
        nearest, difference = (float((share * m).sum()) for m in (self.nearest, self.difference))
        return (nearest / total, difference / total) if total else (0.0, 0.0)

    def clicks(self, count: int, height: int, width: int) -> list[Click]:
        """Clicks at the most similar locations.

        Args:
            count: Number of clicks; there may be fewer.
            height: Height of the image in pixels.
            width: Width of the image in pixels.

        Returns:
            Positive clicks in image pixels, the most similar location first.
        """
        return [
            _middle_of(location, self.grid, height, width) for location in best_locations(self.total, count)
        ]


def best_locations(values: NDArray[np.float32], count: int) -> list[tuple[int, int]]:
    """Positions of the largest values of a map.

    Args:
        values: (rows, columns).
        count: Number of positions; there may be fewer.

    Returns:
        (row, column) of each, the largest value first; none is within `NEIGHBOURS` of another.
    """
    left = values.astype(np.float32, copy=True)
    locations: list[tuple[int, int]] = []
    while len(locations) < count:
        row, column = (int(part) for part in np.unravel_index(int(left.argmax()), left.shape))
        if not np.isfinite(left[row, column]):
            break
        locations.append((row, column))
        around = (slice(max(0, at - NEIGHBOURS), at + NEIGHBOURS + 1) for at in (row, column))
        left[tuple(around)] = -np.inf
    return locations


def _middle_of(location: tuple[int, int], grid: tuple[int, int], height: int, width: int) -> Click:
    row, column = (
        (at + 0.5) * size / count for at, size, count in zip(location, (height, width), grid, strict=True)
    )
    return Click(float(int(row)), float(int(column)))


SURE, UNSURE = 0.65, 0.3
"""Probabilities that `ProposalFeatures.stability` compares."""


@dataclass(frozen=True)
class ProposalFeatures:
    """What can be known about a mask without ground truth.

    Attributes:
        nearest: Mean of `SimilarityMap.nearest` over the mask.
        difference: Mean of `SimilarityMap.difference` over the mask.
        alone: Mean probability in the mask without a click.
        agreement: IoU with the mask without a click.
        stability: Area with a probability above .65, as a share of the area above .3.
        confidence: Mean probability in the mask.
        log_area: Natural logarithm of the mask's share of the image.
    """

    nearest: float
    difference: float
    alone: float
    agreement: float
    stability: float
    confidence: float
    log_area: float


def proposal_features(result: MaskResult, similarity: SimilarityMap, alone: MaskResult) -> ProposalFeatures:
    """Features of a mask that is not empty.

    Args:
        result: The mask.
        similarity: Map of the image.
        alone: Result of the reference alone, without a click.
    """
    mask_hw, probability_hw = result.mask_hw, result.probability_hw
    nearest, difference = similarity.inside(mask_hw)
    unsure = np.count_nonzero(probability_hw > UNSURE)
    return ProposalFeatures(
        nearest=nearest,
        difference=difference,
        alone=float(alone.probability_hw[mask_hw].mean()),
        agreement=intersection_over_union(alone.mask_hw, mask_hw),
        stability=np.count_nonzero(probability_hw > SURE) / max(unsure, 1),
        confidence=float(probability_hw[mask_hw].mean()),
        log_area=float(np.log(mask_hw.mean())),
    )


BIAS = -5.8
WEIGHTS = ProposalFeatures(
    nearest=2.709,
    difference=1.760,
    alone=0.689,
    agreement=1.054,
    stability=0.981,
    confidence=2.863,
    log_area=0.222,
)


def expected_iou(features: ProposalFeatures) -> float:
    """Estimated IoU of a mask with the object, 0..1: a logistic function fitted on training images."""
    pairs = zip(dataclasses.astuple(WEIGHTS), dataclasses.astuple(features), strict=True)
    # The logistic function, in a form that never overflows.
    return 0.5 + 0.5 * math.tanh(0.5 * (BIAS + sum(weight * value for weight, value in pairs)))


@dataclass(frozen=True)
class ProposalLimits:
    """Limits of the proposals for one image.

    Attributes:
        locations: Number of locations that are clicked.
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

    Args:
        predictor: With image and reference set.
        locations: Number of locations that are clicked.
        must_stop: As for `propose`.

    Returns:
        Every mask that is not empty, that of the reference alone first; None if `must_stop` returned true.
    """
    if must_stop():
        return None
    alone = predictor.predict([])
    similarity = SimilarityMap.of(predictor.reference_channels(), alone.probability_hw)
    results = [alone]
    for click in similarity.clicks(locations, *predictor.image_size):
        if must_stop():
            return None
        results.append(predictor.predict([click]))
    found = [
        (result, proposal_features(result, similarity, alone)) for result in results if result.mask_hw.any()
    ]
    return [
        Proposal(
            result, features, expected_iou(features) if result.expected_iou is None else result.expected_iou
        )
        for result, features in found
    ]


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
