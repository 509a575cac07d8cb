"""Means, ratios and paired differences with standard errors, and when a difference may be called one.

Masks of one photograph are not independent of each other: they share the photograph, and often the reference. All
standard errors here are therefore clustered by photograph (Liang and Zeger 1986): they are computed from the sum of the
deviations of each photograph.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

SHOWN_ERRORS = 1.6
"""A difference of fewer standard errors is not called a difference."""
MIN_MASKS = 100
MIN_PHOTOGRAPHS = 20
"""Fewer masks, or masks of fewer photographs, are too few for a verdict: their standard errors are unreliable."""

TOO_FEW = "too few"
NOT_SHOWN = "no difference shown"


@dataclass(frozen=True)
class Estimate:
    """A measured value.

    Attributes:
        value: The value.
        error: Its standard error; None if there are fewer than two photographs.

    Example:
        >>> str(Estimate(0.6161, 0.0301))
        '0.616 ± 0.030'
    """

    value: float
    error: float | None

    def __str__(self) -> str:
        return self.rounded(3)

    def rounded(self, digits: int) -> str:
        """The value and its error with a number of decimals."""
        error = "?" if self.error is None else f"{self.error:.{digits}f}"
        return f"{self.value:.{digits}f} ± {error}"


@dataclass(frozen=True)
class Paired:
    """Two ways of doing the same work, measured on the same masks.

    Attributes:
        masks: Number of masks.
        photographs: Number of their photographs.
        first: Mean of the first way.
        second: Mean of the second way.
        change: Of the second against the first: a difference, or a ratio if `neutral` is 1.
        neutral: Value of `change` when both are equal.
        more_is_better: Whether a larger value is better.
    """

    masks: int
    photographs: int
    first: float
    second: float
    change: Estimate
    neutral: float = 0.0
    more_is_better: bool = True

    @property
    def verdict(self) -> str:
        """One of "better" and "worse" (of the second), `NOT_SHOWN` and `TOO_FEW`."""
        if is_too_few(self.masks, self.photographs):
            return TOO_FEW
        effect = self.change.value - self.neutral
        if self.change.error is None or effect == 0 or abs(effect) < SHOWN_ERRORS * self.change.error:
            return NOT_SHOWN
        return "better" if (effect > 0) == self.more_is_better else "worse"


def is_too_few(masks: int, photographs: int) -> bool:
    """Whether masks are too few for a figure that may be quoted.

    Args:
        masks: Number of masks.
        photographs: Number of their photographs.
    """
    return masks < MIN_MASKS or photographs < MIN_PHOTOGRAPHS


def mean_of(values: Sequence[float], photographs: Sequence[Hashable]) -> Estimate:
    """Mean with its standard error, clustered by photograph.

    Args:
        values: One per mask, at least one.
        photographs: The photograph of each mask.

    Example:
        >>> mean_of([0.0, 1.0], ["a", "b"])
        Estimate(value=0.5, error=0.5)
    """
    mean = float(np.mean(values))
    return Estimate(mean, _clustered_error([value - mean for value in values], photographs))


def difference_of(first: Sequence[float], second: Sequence[float], photographs: Sequence[Hashable]) -> Paired:
    """Mean difference of the second values against the first, where more is better.

    Args:
        first: One value per mask, at least one.
        second: Values of the same masks in the same order.
        photographs: The photograph of each mask.

    Raises:
        ValueError: If the lengths differ.
    """
    changes = [after - before for before, after in zip(first, second, strict=True)]
    return Paired(
        masks=len(changes),
        photographs=len(set(photographs)),
        first=float(np.mean(first)),
        second=float(np.mean(second)),
        change=mean_of(changes, photographs),
    )


def ratio_of(first: Sequence[float], second: Sequence[float], photographs: Sequence[Hashable]) -> Paired:
    """Ratio of the second mean to the first, where less is better. The error is by the delta method.

    A first mean of zero gives the ratio 1 if the second is zero, too, and infinity otherwise, without an error.

    Args:
        first: One value per mask, at least one, not negative.
        second: Values of the same masks in the same order.
        photographs: The photograph of each mask.

    Raises:
        ValueError: If the lengths differ.
    """
    base, other = float(np.mean(first)), float(np.mean(second))
    if base:
        ratio = other / base
        deviations = [after - ratio * before for before, after in zip(first, second, strict=True)]
        error = _clustered_error(deviations, photographs)
        change = Estimate(ratio, None if error is None else error / base)
    else:
        change = Estimate(math.inf if other else 1.0, None)
    return Paired(
        masks=len(first),
        photographs=len(set(photographs)),
        first=base,
        second=other,
        change=change,
        neutral=1.0,
        more_is_better=False,
    )


def _clustered_error(deviations: Sequence[float], photographs: Sequence[Hashable]) -> float | None:
    """Standard error of the mean of deviations whose sum is zero; None for fewer than two photographs."""
    sums: dict[Hashable, float] = {}
    for photograph, deviation in zip(photographs, deviations, strict=True):
        sums[photograph] = sums.get(photograph, 0.0) + deviation
    count = len(sums)
    if count < 2:
        return None
    squares = sum(total * total for total in sums.values())
    return math.sqrt(squares * count / (count - 1)) / len(deviations)
