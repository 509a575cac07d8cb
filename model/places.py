"""Where on an image the reference's label may be: likeness patch by patch, and the places where it is highest."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from model.array_types import BoolMask
from model.robot_clicker import Click

NEAREST = 2
NEAREST_DIFFERENCE = 9
"""Channels of `model.network.similarity.reference_channels`."""
NEIGHBOURS = 2
"""Patches round a place in which there is no second one."""


@dataclass(frozen=True)
class Likeness:
    """How much each patch of an image looks like the reference; all maps are (rows, columns).

    nearest: mean cosine to the nearest patches inside the reference's mask. difference: how much larger that is than
    the one to what must stay out. alone: probability without a click.
    """

    nearest: NDArray[np.float32]
    difference: NDArray[np.float32]
    alone: NDArray[np.float32]

    @classmethod
    def of(cls, channels: NDArray[np.float32] | None, probability_hw: NDArray[np.float32]) -> Likeness:
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
        return [_middle_of(place, self.grid, height, width) for place in best_places(self.total, count)]


def best_places(values: NDArray[np.float32], count: int) -> list[tuple[int, int]]:
    """At most `count` (row, column) of a map, the highest first, none within `NEIGHBOURS` of another."""
    left = values.astype(np.float32, copy=True)
    places: list[tuple[int, int]] = []
    while len(places) < count:
        row, column = (int(part) for part in np.unravel_index(int(left.argmax()), left.shape))
        if not np.isfinite(left[row, column]):
            break
        places.append((row, column))
        around = (slice(max(0, at - NEIGHBOURS), at + NEIGHBOURS + 1) for at in (row, column))
        left[tuple(around)] = -np.inf
    return places


def _middle_of(place: tuple[int, int], grid: tuple[int, int], height: int, width: int) -> Click:
    row, column = (
        (at + 0.5) * size / count for at, size, count in zip(place, (height, width), grid, strict=True)
    )
    return Click(float(int(row)), float(int(column)))
