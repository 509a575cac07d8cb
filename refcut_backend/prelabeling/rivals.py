"""Of masks of different labels that show the same thing, the surer one stays.

Each label is looked for on its own, so a label that is not on a photograph is often found on what belongs to another one:
a back window where the front window is. Where both labels are looked for, the higher score is mostly the right one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refcut_backend.label_studio import brush_rle
from refcut_backend.queue.messages import FoundLabel

SAME_IOU = 0.6
"""Masks with a higher IoU show the same thing."""
MARGIN = 0.05
"""Two labels may mean the same thing; both masks stay if their scores differ by less. Chosen on the development share."""
COMPARED_PX = 256
"""Masks are compared at about this size of their longer side."""


@dataclass(frozen=True)
class _Shown:
    """A mask of a task.

    Attributes:
        place: Number of its label among those that were looked for, and its number among the label's masks.
        to_name: Image that it lies on.
        score: Expected IoU of the mask, 0..1.
        small_hw: The mask with every n-th pixel, bool.
    """

    place: tuple[int, int]
    to_name: str
    score: float
    small_hw: NDArray[np.bool_]

    def gives_way_to(self, other: _Shown) -> bool:
        """Whether the other one is a surer mask of another label on the same thing."""
        return (
            other.place[0] != self.place[0]
            and other.to_name == self.to_name
            and other.score >= self.score + MARGIN
            and _iou(other.small_hw, self.small_hw) > SAME_IOU
        )


def without_rivals(found: Sequence[FoundLabel]) -> list[FoundLabel]:
    """Leave out each mask that shows what a mask of another label shows that is surer.

    Args:
        found: What was found of each label of a task. Labels of several images are compared image by image.

    Returns:
        The same labels in the same order; some have fewer masks.
    """
    if sum(bool(label.masks) for label in found) < 2:
        return list(found)
    kept: list[_Shown] = []
    for one in sorted(_shown(found), key=lambda one: -one.score):
        if not any(one.gives_way_to(other) for other in kept):
            kept.append(one)
    stay = {one.place for one in kept}
    return [
        dataclasses.replace(
            label, masks=tuple(mask for index, mask in enumerate(label.masks) if (number, index) in stay)
        )
        for number, label in enumerate(found)
    ]


def _shown(found: Sequence[FoundLabel]) -> Iterator[_Shown]:
    for number, label in enumerate(found):
        step = max(max(label.width, label.height) // COMPARED_PX, 1)
        for index, mask in enumerate(label.masks):
            mask_hw = brush_rle.decode(mask.rle, label.height, label.width)
            yield _Shown((number, index), label.to_name, mask.score, mask_hw[::step, ::step].copy())


def _iou(first_hw: NDArray[np.bool_], second_hw: NDArray[np.bool_]) -> float:
    """IoU of two masks; 0 if both are empty at this size. `model.masks` has one, but the web process cannot import it."""
    either = np.count_nonzero(first_hw | second_hw)
    return np.count_nonzero(first_hw & second_hw) / either if either else 0.0
