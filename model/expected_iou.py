"""The IoU to expect of a mask that nobody clicked: a logistic curve over its evidence.

Fitted as `python -m benchmarks.prelabel_score --fit` does, to 1520 masks of 304 labels on training photographs of cars
and clothing (figures on other photographs: docs/prelabelling.md). The weights belong to networks that compare features as
`s14` does, whatever a project has taught them on top; for any other the order of masks may still be right, their level is
not.
"""

from __future__ import annotations

import dataclasses
import math

from model.mask_evidence import Evidence

BIAS = -5.8
WEIGHTS = Evidence(
    nearest=2.709,
    difference=1.760,
    alone=0.689,
    agreement=1.054,
    stability=0.981,
    confidence=2.863,
    log_area=0.222,
)


def expected_iou(evidence: Evidence) -> float:
    """Between 0 and 1."""
    pairs = zip(dataclasses.astuple(WEIGHTS), dataclasses.astuple(evidence), strict=True)
    # The logistic function, in a form that no evidence makes overflow.
    return 0.5 + 0.5 * math.tanh(0.5 * (BIAS + sum(weight * value for weight, value in pairs)))
