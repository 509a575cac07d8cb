"""Masks of an answer in the image frame. A candidate that nobody looks at stays at the size of the network's output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.box_prompts import cut_off
from model.network.candidates import MEANT, Segmentation
from model.transforms import paste_map
from model.types import Box, MaskResult

CHOICE_CLICKS = 2
"""Up to this many clicks the extent may be in doubt; after more of them they have settled it."""
CHOICE_MARGIN = 0.6
"""The smaller or the larger mask is taken if the logit of its expected IoU is so much higher than that of the one that is
meant. Estimates err; chosen on the development share and on faces."""

SURE = 1e-4
"""Expected IoUs closer than this to 0 or 1 count as this close."""


@dataclass(frozen=True)
class Placement:
    """Where the network's output lies in the image.

    Attributes:
        crop: The part of the image that the network saw.
        size_px: Side of the network's input.
        image_size: Height and width of the image in pixels.
        limits: The mask is cut off outside this box; None means no limits.
        threshold: A pixel with a larger probability belongs to the mask.
    """

    crop: Box
    size_px: int
    image_size: tuple[int, int]
    limits: Box | None
    threshold: float


@dataclass(frozen=True)
class CropMask:
    """One mask of an answer, computed in the image frame when it is asked for (`model.types.CandidateMask`).

    Attributes:
        logits: (1, 1, h, w), the network's output for the crop.
        placement: Where it lies.
        expected_iou: IoU that the mask can be expected to have, 0 to 1; None if the network does not estimate it.
    """

    logits: Tensor
    placement: Placement
    expected_iou: float | None

    @cached_property
    def probability_hw(self) -> NDArray[np.float32]:
        """Probability of each pixel, float32 (H, W), in the image frame; zero outside the crop."""
        place = self.placement
        size = (place.size_px, place.size_px)
        logits = F.interpolate(self.logits.float(), size=size, mode="bilinear", align_corners=True)
        full = paste_map(torch.sigmoid(logits), place.crop, *place.image_size)
        return full if place.limits is None else cut_off(full, place.limits)

    @cached_property
    def mask_hw(self) -> NDArray[np.bool_]:
        """The mask, bool (H, W), in the image frame."""
        mask_hw: NDArray[np.bool_] = self.probability_hw > self.placement.threshold
        return mask_hw

    def uncomputed(self) -> CropMask:
        """A copy without the arrays that were computed."""
        return replace(self)


@dataclass(frozen=True)
class MeanMask:
    """The mean of one mask in two looks, computed when it is asked for (`model.types.CandidateMask`).

    Attributes:
        first: The mask in the first look.
        second: The mask in the look at a crop.
        weight: Weight of the second look, 0 to 1.
        expected_iou: IoU that the mask can be expected to have, 0 to 1.
    """

    first: CropMask
    second: CropMask
    weight: float
    expected_iou: float

    @property
    def placement(self) -> Placement:
        """Where it lies: where the second look does. It is empty outside that crop."""
        return self.second.placement

    @cached_property
    def probability_hw(self) -> NDArray[np.float32]:
        """Probability of each pixel, float32 (H, W), in the image frame; zero outside the crop."""
        inside = self.placement.crop.slices
        first, second = self.first.probability_hw, self.second.probability_hw
        mean = np.zeros_like(second)
        mean[inside] = (1 - self.weight) * first[inside] + self.weight * second[inside]
        return mean

    @cached_property
    def mask_hw(self) -> NDArray[np.bool_]:
        """The mask, bool (H, W), in the image frame."""
        mask_hw: NDArray[np.bool_] = self.probability_hw > self.placement.threshold
        return mask_hw

    def uncomputed(self) -> MeanMask:
        """A copy without the arrays that were computed."""
        return replace(self, first=self.first.uncomputed(), second=self.second.uncomputed())


NetworkMask = CropMask | MeanMask
"""A mask that can be computed again from the network's output."""


def best_of(quality: Sequence[float]) -> int:
    """The number of the mask to be taken.

    Args:
        quality: Logit of the expected IoU of the smaller mask, the one that is meant, and the larger one.

    Example:
        >>> best_of([0.5, 0.4, 0.3]), best_of([0.5, 0.4, 1.5])
        (1, 2)
    """
    return int(np.argmax(np.asarray(quality) + CHOICE_MARGIN * (np.arange(len(quality)) == MEANT)))


def mask_result(segmentation: Segmentation, placement: Placement, prompts: int) -> MaskResult:
    """Choose among the masks of an answer.

    Args:
        segmentation: The network's output for one crop (batch of 1).
        placement: Where the crop lies.
        prompts: Number of clicks and boxes that the annotator has given. Up to `CHOICE_CLICKS` the mask with the largest
            expected IoU is taken, after that the one that is meant.

    Returns:
        The chosen mask in the image frame, and all of them as candidates, the smallest first.
    """
    if segmentation.quality is None:
        masks = [CropMask(segmentation.logits, placement, None)]
        chosen = 0
    else:
        worth = torch.sigmoid(segmentation.quality[0]).tolist()
        masks = [
            CropMask(segmentation.logits[:, index : index + 1], placement, value)
            for index, value in enumerate(worth)
        ]
        chosen = best_of(segmentation.quality[0].tolist()) if prompts <= CHOICE_CLICKS else MEANT
    return chosen_mask(masks, chosen)


def chosen_mask(masks: Sequence[NetworkMask], chosen: int) -> MaskResult:
    """An answer of several masks, one of which was chosen.

    Args:
        masks: The masks, the smallest first.
        chosen: Number of the mask.

    Returns:
        The chosen mask in the image frame, and all of them as candidates.
    """
    taken = masks[chosen]
    return MaskResult(
        taken.mask_hw, taken.probability_hw, taken.placement.crop, taken.expected_iou, tuple(masks), chosen
    )


def mean_of_looks(first: MaskResult, second: MaskResult) -> MaskResult:
    """Combine two looks at a first click: the mean of each mask, weighted by what the network expects of the looks.

    The weight of a look is the odds of its expected IoU: two looks of which the network expects .5 and .75 have the
    weights 1 and 3.

    Args:
        first: The answer for the whole image.
        second: The answer for a crop of it.

    Returns:
        The mean in the crop of the second look. The second look if the network does not estimate the IoU.
    """
    if first.expected_iou is None or second.expected_iou is None:
        return second
    weight = 1 / (1 + math.exp(_logit(first.expected_iou) - _logit(second.expected_iou)))
    masks, quality = [], []
    for one, other in zip(first.candidates, second.candidates, strict=True):
        assert isinstance(one, CropMask)
        assert isinstance(other, CropMask)
        quality.append((1 - weight) * _logit(one.expected_iou) + weight * _logit(other.expected_iou))
        masks.append(MeanMask(one, other, weight, 1 / (1 + math.exp(-quality[-1]))))
    answer = chosen_mask(masks, best_of(quality))
    # The maps of the single looks, several megabytes each, are not kept.
    return replace(answer, candidates=tuple(mask.uncomputed() for mask in masks))


def _logit(share: float | None) -> float:
    assert share is not None, "a network expects an IoU of all its masks, or of none"
    within = min(max(share, SURE), 1 - SURE)
    return math.log(within / (1 - within))
