"""How well the expected IoU of a mask agrees with its IoU, by decile of the expectation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.evaluation.records import Record
from model.evaluation.standard_errors import Estimate, mean_of

DECILES = 10


@dataclass(frozen=True)
class Bin:
    """Masks with about the same expected IoU.

    Attributes:
        masks: Number of masks.
        expected: Mean expected IoU.
        measured: Mean IoU.
    """

    masks: int
    expected: float
    measured: Estimate

    @property
    def error(self) -> float:
        """How much too high the expectation is."""
        return self.expected - self.measured.value


@dataclass(frozen=True)
class Calibration:
    """The expected IoU of masks against their IoU.

    Attributes:
        bins: Deciles by expected IoU, the lowest first; fewer if there are fewer masks.
    """

    bins: tuple[Bin, ...]

    @property
    def masks(self) -> int:
        """Number of masks."""
        return sum(one.masks for one in self.bins)

    @property
    def mean_error(self) -> float:
        """Mean distance of expectation and IoU over the bins, weighted by their masks (expected calibration error)."""
        return sum(abs(one.error) * one.masks for one in self.bins) / self.masks

    @property
    def largest_error(self) -> float:
        """Distance of expectation and IoU in the worst bin."""
        return max(abs(one.error) for one in self.bins)


def calibrate(records: Sequence[Record], clicks: int) -> Calibration | None:
    """Compare expected and measured IoU after a number of clicks.

    Args:
        records: Results; those without an expected IoU are left out.
        clicks: Number of clicks, from 1. Sessions that ended earlier are left out.

    Returns:
        None if no record has an expected IoU after so many clicks.
    """
    found = [
        (record.expected_ious[clicks - 1], record.ious[clicks - 1], record.photograph)
        for record in records
        if len(record.expected_ious) >= clicks
    ]
    if not found:
        return None
    found.sort(key=lambda one: one[0])
    deciles = [list(part) for part in np.array_split(np.arange(len(found)), min(DECILES, len(found)))]
    return Calibration(tuple(_bin([found[index] for index in part]) for part in deciles))


def _bin(masks: Sequence[tuple[float, float, tuple[str, str]]]) -> Bin:
    expected, measured, photographs = zip(*masks, strict=True)
    return Bin(len(masks), float(np.mean(expected)), mean_of(measured, photographs))
