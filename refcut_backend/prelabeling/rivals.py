"""Of masks of different labels that show the same thing, the surer one stays.

Each label is looked for on its own, so a label that is not on a photograph is often found on what belongs to another one:
a back window where the front window is. Where both labels are looked for, the mask with the higher score shows which one
is right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from refcut_backend.label_studio import brush_rle
from refcut_backend.queue.messages import FoundLabel, FoundMask

SAME_IOU = 0.6
"""Masks with a higher IoU show the same thing."""
MARGIN = 0.05
"""Two labels may mean the same thing; both masks stay if their scores differ by less. Chosen on the development share."""
COMPARED_PX = 256
"""Masks are compared at about this size of their longer side."""


def without_rivals(found: Sequence[FoundLabel]) -> list[FoundLabel]:
    """Leave out each mask that shows what a mask of another label shows that is surer.

    Args:
        found: What was found of each label of a task. Labels of several images are compared image by image.

    Returns:
        The same labels in the same order; some have fewer masks.
    """
    if sum(bool(label.masks) for label in found) < 2:
        return list(found)
    small = {(number, index): mask_hw for number, index, mask_hw in _small_masks(found)}
    by_score = sorted(small, key=lambda key: -found[key[0]].masks[key[1]].score)
    kept: list[tuple[int, int]] = []
    for number, index in by_score:
        rivals = (
            (other, place)
            for other, place in kept
            if other != number and found[other].to_name == found[number].to_name
        )
        score = found[number].masks[index].score
        if not any(
            found[other].masks[place].score >= score + MARGIN
            and _iou(small[number, index], small[other, place]) > SAME_IOU
            for other, place in rivals
        ):
            kept.append((number, index))
    stay = set(kept)
    return [
        dataclasses.replace(
            label, masks=tuple(mask for index, mask in enumerate(label.masks) if (number, index) in stay)
        )
        for number, label in enumerate(found)
    ]


def _small_masks(found: Sequence[FoundLabel]) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Number of the label, index of the mask, and the mask with every n-th pixel."""
    for number, label in enumerate(found):
        step = max(max(label.width, label.height) // COMPARED_PX, 1)
        for index, mask in enumerate(label.masks):
            yield number, index, _decoded(mask, label)[::step, ::step].copy()


def _decoded(mask: FoundMask, label: FoundLabel) -> NDArray[np.bool_]:
    return brush_rle.decode(mask.rle, label.height, label.width)


def _iou(first_hw: NDArray[np.bool_], second_hw: NDArray[np.bool_]) -> float:
    """IoU of two masks; 0 if both are empty at this size."""
    either = np.count_nonzero(first_hw | second_hw)
    return np.count_nonzero(first_hw & second_hw) / either if either else 0.0
