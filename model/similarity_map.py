"""Where an image looks like a reference: places to click, and how well a mask covers what the reference shows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from model.reference_comparison import ReferenceComparison
from model.types import BoolMask, Click

NEAREST = 2
NEAREST_DIFFERENCE = 9
"""Index of a channel of `model.network.similarity.reference_channels`."""
NEIGHBOURS = 2
"""Distance in patches within which there is no second location."""
INSIDE = 0.5
"""A patch counts as covered by a mask from this share on; for a smaller mask, the patch that it covers most."""


@dataclass(frozen=True)
class SimilarityMap:
    """How similar each patch of an image is to the reference. All maps are float32 (rows, columns).

    Attributes:
        nearest: Mean cosine to the nearest patches inside the reference's mask.
        difference: How much larger that is than the mean cosine to the nearest patches inside the negative mask.
        alone: Probability without a click, from the reference alone.
        cosines: Cosine to each of the P patches inside the reference's mask, float32 (rows, columns, P).
    """

    nearest: NDArray[np.float32]
    difference: NDArray[np.float32]
    alone: NDArray[np.float32]
    cosines: NDArray[np.float32]

    @classmethod
    def of(cls, comparison: ReferenceComparison | None, probability_hw: NDArray[np.float32]) -> SimilarityMap:
        """Make the map of an image.

        Args:
            comparison: `RefCutPredictor.reference_comparison()`. None for a network without similarity channels: the
                map then has the size of the image.
            probability_hw: Probability that the reference alone gives, without a click, (H, W).
        """
        if comparison is None:
            nothing = np.zeros_like(probability_hw)
            return cls(nothing, nothing, probability_hw, np.zeros((*nothing.shape, 0), np.float32))
        channels = comparison.channels
        rows, columns, _ = channels.shape
        alone = cv2.resize(probability_hw, (columns, rows), interpolation=cv2.INTER_AREA)
        return cls(
            channels[..., NEAREST],
            channels[..., NEAREST_DIFFERENCE],
            np.asarray(alone, np.float32),
            comparison.cosines,
        )

    @property
    def total(self) -> NDArray[np.float32]:
        """Sum of the three maps. On training images, no single map has its maximum on the label more often."""
        return self.nearest + self.difference + self.alone

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.alone.shape[0], self.alone.shape[1]

    def coverage(self, mask_hw: BoolMask) -> float:
        """How well the patches of the reference find their like inside a mask, bool (H, W), that is not empty.

        Returns:
            Mean over the patches inside the reference's mask of the largest cosine to a patch inside `mask_hw`; 0 if
            there are none.
        """
        rows, columns = self.grid
        share = cv2.resize(mask_hw.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        found = self.cosines[share >= min(INSIDE, share.max())]
        return float(found.max(axis=0).mean()) if found.size else 0.0

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
