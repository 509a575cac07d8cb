"""The IoU to expect of a mask that nobody clicked: a logistic curve over its evidence.

Fitted by `python -m benchmarks.prelabel_score --fit` on training photographs of cars and clothing (figures on others: see
docs/prelabelling.md). The weights belong to networks that compare features as `s14` does, whatever a project has taught
them on top; for any other the order of masks may still be right, their level is not.
"""

from __future__ import annotations

import dataclasses
import math

from model.mask_evidence import Evidence

BIAS = -8.0
WEIGHTS = Evidence(
    nearest=4.424,
    difference=-0.031,
    alone=0.788,
    agreement=1.265,
    stability=1.124,
    confidence=4.334,
    log_area=0.211,
)


def expected_iou(evidence: Evidence) -> float:
    """Between 0 and 1."""
    pairs = zip(dataclasses.astuple(WEIGHTS), dataclasses.astuple(evidence), strict=True)
    # The logistic function, in a form that no evidence makes overflow.
    return 0.5 + 0.5 * math.tanh(0.5 * (BIAS + sum(weight * value for weight, value in pairs)))
