"""Masks that a reference gives before any click, as one-shot segmentation does, for clicks to refine (RefCut, table 2).

    mode        first mask                                                          clicks refine it
    alone       the network's own, without a click                                  with the reference
    nearest     patches whose nearest patches in the reference are inside its mask  without a reference
    prototype   patches nearer to the mean of the mask than to that of the rest     without a reference

The last two compare the frozen features of the network's encoder and need no training, like Matcher (nearest) and PerSAM
(prototype). They see the whole reference: everything outside its mask counts as negative.
"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np

from model.errors import ModelError
from model.evaluation.modes import FirstMask
from model.evaluation.robot_annotator import Predictor
from model.network.prompts import ReferenceTokens
from model.reference_comparison import ReferenceComparison
from model.types import Box, MaskResult

MATCHED: dict[FirstMask | None, int] = {"prototype": 8, "nearest": 9}
"""First masks by matching, with the channel of `model.network.similarity.reference_channels` that they are read from."""


class StartingPredictor(Predictor, Protocol):
    """A predictor whose first click can build on a given mask."""

    def start_from(self, start: MaskResult | None) -> None:
        """Build the first click on a mask, or on none; see `RefCutPredictor.start_from`."""

    def reference_comparison(self) -> ReferenceComparison | None:
        """Compare the image with the reference; see `RefCutPredictor.reference_comparison`."""


def first_mask(
    predictor: StartingPredictor, reference: ReferenceTokens, kind: FirstMask, size_hw: tuple[int, int]
) -> MaskResult:
    """Segment the predictor's image by a reference, without a click.

    Args:
        predictor: Its image is set. It keeps the reference.
        reference: The reference; for a matched mask, its negative mask is all that is outside the positive one.
        kind: Kind of the mask.
        size_hw: Height and width of the image.

    Raises:
        ModelError: If a mask is to be matched and the network has no features to compare.
    """
    predictor.set_reference(reference)
    if kind not in MATCHED:
        return predictor.predict([])
    comparison = predictor.reference_comparison()
    if comparison is None:
        raise ModelError(
            "this network has no frozen features to match a reference with",
            hint="leave out the modes nearest and prototype",
        )
    height, width = size_hw
    nearer = cv2.resize(
        comparison.channels[..., MATCHED[kind]], (width, height), interpolation=cv2.INTER_LINEAR
    )
    mask_hw = np.asarray(nearer > 0)
    return MaskResult(mask_hw, mask_hw.astype(np.float32), Box.whole(height, width))
