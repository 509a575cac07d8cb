"""Objects of a reference's label on an image that nobody has clicked on.

The places that look most like the reference become clicks, the predictor makes masks of them, and of masks that overlap
the surest stays.
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
from model.predictor import MaskResult, RefCutPredictor
from model.types import BoolMask, Click

NEAREST = 2
NEAREST_DIFFERENCE = 9
"""Channels of `model.network.similarity.reference_channels`."""
NEIGHBOURS = 2
"""Patches round a place in which there is no second one."""


@dataclass(frozen=True)
class SimilarityMap:
    """How much each patch of an image looks like the reference; all maps are (rows, columns).

    nearest: mean cosine to the nearest patches inside the reference's mask. difference: how much larger that is than
    the one to what must stay out. alone: probability without a click.
    """

    nearest: NDArray[np.float32]
    difference: NDArray[np.float32]
    alone: NDArray[np.float32]

    @classmethod
    def of(cls, channels: NDArray[np.float32] | None, probability_hw: NDArray[np.float32]) -> SimilarityMap:
        """channels: (rows, columns, 12), None for a network that does not compare: the patches are then the pixels.

        probability_hw: (H, W), what the network makes of the reference alone, without a click.
        """
        if channels is None:
            nothing = np.zeros_like(probability_hw)
            return cls(nothing, nothing, probability_hw)
        rows, columns, _ = channels.shape
        alone = cv2.resize(probability_hw, (columns, rows), interpolation=cv2.INTER_AREA)
        return cls(channels[..., NEAREST], channels[..., NEAREST_DIFFERENCE], np.asarray(alone, np.float32))

    @property
    def total(self) -> NDArray[np.float32]:
        """The sum: on training photographs none of the three has its highest place on the label oftener."""
        return self.nearest + self.difference + self.alone

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.alone.shape[0], self.alone.shape[1]

    def inside(self, mask_hw: BoolMask) -> tuple[float, float]:
        """Means of `nearest` and `difference` over a mask (H, W) that is not empty."""
        rows, columns = self.grid
        share = cv2.resize(mask_hw.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        total = float(share.sum())
        nearest, difference = (float((share * m).sum()) for m in (self.nearest, self.difference))
        return (nearest / total, difference / total) if total else (0.0, 0.0)

    def clicks(self, count: int, height: int, width: int) -> list[Click]:
        """At most `count` clicks on the places that are most alike, in pixels of an image of height x width."""
        return [
            _middle_of(location, self.grid, height, width) for location in best_locations(self.total, count)
        ]


def best_locations(values: NDArray[np.float32], count: int) -> list[tuple[int, int]]:
    """At most `count` (row, column) of a map, the highest first, none within `NEIGHBOURS` of another."""
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


@dataclass(frozen=True)
class ProposalFeatures:
    """nearest, difference: means over the mask of the maps in `model.proposals.Likeness`.

    alone: mean probability in the mask without a click. agreement: IoU with the mask without a click.
    stability: area above probability .65 as share of that above .3. confidence: mean probability in the mask.
    log_area: natural logarithm of the mask's share of the image.
    """

    nearest: float
    difference: float
    alone: float
    agreement: float
    stability: float
    confidence: float
    log_area: float


def proposal_features(result: MaskResult, similarity: SimilarityMap, alone: MaskResult) -> ProposalFeatures:
    """The evidence for a mask that is not empty. alone: what the network makes of the reference without a click."""
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
    """Between 0 and 1."""
    pairs = zip(dataclasses.astuple(WEIGHTS), dataclasses.astuple(features), strict=True)
    # The logistic function, in a form that no evidence makes overflow.
    return 0.5 + 0.5 * math.tanh(0.5 * (BIAS + sum(weight * value for weight, value in pairs)))


@dataclass(frozen=True)
class ProposalLimits:
    """places: clicks that are tried on an image. min_score: masks of a lower expected IoU are not proposed.

    overlap: of two masks of which the smaller lies within the other by this share, the surer one stays.
    """

    locations: int = 4
    min_score: float = 0.3
    overlap: float = 0.5


@dataclass(frozen=True)
class Proposal:
    """A mask that nobody asked for. score: the IoU to expect of it, 0..1."""

    result: MaskResult
    features: ProposalFeatures
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
    candidates = find_candidates(predictor, limits.locations, must_stop)
    if candidates is None:
        return None
    wanted = [candidate for candidate in candidates if candidate.score >= limits.min_score]
    return without_overlaps(wanted, limits.overlap)


def find_candidates(
    predictor: RefCutPredictor, locations: int, must_stop: Callable[[], bool] = lambda: False
) -> list[Proposal] | None:
    """Every mask that was tried and is not empty, in the order of trying: that of the reference alone first."""
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
    return [Proposal(result, features, expected_iou(features)) for result, features in found]


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
