"""How well the expected IoU of masks agrees with their IoU, by decile of the expectation; and a correction of it.

`python -m model calibrate` fits the correction on the results of an evaluation and writes it into a version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.errors import DataError
from model.evaluation.records import Record
from model.evaluation.standard_errors import MIN_MASKS, Estimate, mean_of

DECILES = 10
FITTED_CLICKS = 3
"""The correction is fitted on the masks after each of this many first clicks."""
PRIOR_MASKS = 20.0
"""How strongly the correction holds to "none": as much as this many masks."""


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


@dataclass(frozen=True)
class Correction:
    """What is applied to the logit of an expected IoU: `scale * logit + shift`.

    Attributes:
        scale: Below 1 for expectations that are too sure.
        shift: Below 0 for expectations that are too high.
    """

    scale: float = 1.0
    shift: float = 0.0

    def after(self, earlier: Correction) -> Correction:
        """The correction that does the same as an earlier one followed by this one."""
        return Correction(self.scale * earlier.scale, self.scale * earlier.shift + self.shift)


def fit_correction(expected: Sequence[float], measured: Sequence[float]) -> Correction:
    """Fit the correction that makes expected IoUs agree with measured ones (Platt scaling, with a prior).

    Args:
        expected: Expected IoU of each mask, 0 to 1.
        measured: IoU of each mask, 0 to 1.

    Returns:
        The correction with the least cross-entropy. With few masks it stays near none.
    """
    sure = np.clip(np.asarray(expected, np.float64), 1e-4, 1 - 1e-4)
    logits = np.log(sure / (1 - sure))
    inputs = np.stack([logits, np.ones_like(logits)], axis=1)
    none = np.array([1.0, 0.0])
    found = none.copy()
    # The logistic function is nowhere steeper than a quarter: with this curvature every step is downhill.
    curvature = 0.25 * (inputs.T @ inputs + PRIOR_MASKS * np.eye(2))
    for _ in range(1000):
        fitted = 1 / (1 + np.exp(-(inputs @ found)))
        gradient = inputs.T @ (fitted - measured) + 0.25 * PRIOR_MASKS * (found - none)
        step = np.linalg.solve(curvature, gradient)
        found = found - step
        if np.abs(step).max() < 1e-7:
            break
    return Correction(float(found[0]), float(found[1]))


def correction_of(records: Sequence[Record]) -> Correction:
    """Fit the correction of a version on the results of its evaluation.

    Args:
        records: Results. Masks after the first `FITTED_CLICKS` clicks count.

    Raises:
        DataError: If fewer than `MIN_MASKS` masks have an expected IoU.
    """
    pairs = [
        (expected, measured)
        for record in records
        for expected, measured in zip(record.expected_ious[:FITTED_CLICKS], record.ious, strict=False)
    ]
    if len(pairs) < MIN_MASKS:
        raise DataError(
            f"only {len(pairs)} masks have an expected IoU, {MIN_MASKS} are needed",
            hint="evaluate more masks (--limit), with a version that estimates the IoU of its masks",
        )
    expected, measured = zip(*pairs, strict=True)
    return fit_correction(expected, measured)
