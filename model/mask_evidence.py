"""What speaks for a mask that nobody clicked, in numbers that do not need the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.places import Likeness
from model.predictor import MaskResult
from model.robot_clicker import intersection_over_union

SURE, UNSURE = 0.65, 0.3


@dataclass(frozen=True)
class Evidence:
    """nearest, difference: means over the mask of the maps in `model.places.Likeness`.

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


def evidence_for(result: MaskResult, likeness: Likeness, alone: MaskResult) -> Evidence:
    """The evidence for a mask that is not empty. alone: what the network makes of the reference without a click."""
    mask_hw, probability_hw = result.mask_hw, result.probability_hw
    nearest, difference = likeness.inside(mask_hw)
    unsure = np.count_nonzero(probability_hw > UNSURE)
    return Evidence(
        nearest=nearest,
        difference=difference,
        alone=float(alone.probability_hw[mask_hw].mean()),
        agreement=intersection_over_union(alone.mask_hw, mask_hw),
        stability=np.count_nonzero(probability_hw > SURE) / max(unsure, 1),
        confidence=float(probability_hw[mask_hw].mean()),
        log_area=float(np.log(mask_hw.mean())),
    )
