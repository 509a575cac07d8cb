"""The steps of clicking on one image that are kept, so that a click computes no step again that was computed before.

Several annotators may click on the same photograph, and one annotator goes from object to object. Each click repeats all
clicks of its object; the step of the longest known part of them is where the predictor continues.

    kept             number          what of a step
    newest           `WHOLE_STEPS`   everything: masks in the frame of the image, several megabytes each
    those before     `KEPT_STEPS`    the network's output, a tenth of a megabyte; the masks are computed again from it
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from model.candidate_masks import CropMask, MeanMask, NetworkMask, chosen_mask
from model.memory import nbytes
from model.types import Box, Click, MaskResult

WHOLE_STEPS = 4
KEPT_STEPS = 48


@dataclass(frozen=True)
class Step:
    """One step of a click list.

    Attributes:
        box: The box around the object; None without one.
        clicks: The clicks so far.
        result: The mask.
        zoom_crop: The crop that the next step compares with; None if none was chosen yet.
    """

    box: Box | None
    clicks: tuple[Click, ...]
    result: MaskResult
    zoom_crop: Box | None


@dataclass(frozen=True)
class _Output:
    """What a step is computed from again: the network's output, and which mask of it was chosen."""

    masks: tuple[NetworkMask, ...]
    chosen: int
    zoom_crop: Box | None

    @cached_property
    def nbytes(self) -> int:
        """Bytes of memory. They are counted once, since every click asks for the bytes of all steps."""
        return nbytes(self.masks)


_Sources = tuple[str, ...] | None
_Key = tuple[_Sources, Box | None, tuple[Click, ...]]


class ClickSteps:
    """Steps on one image. The least recently used ones are dropped."""

    def __init__(self) -> None:
        self._whole: OrderedDict[_Key, Step] = OrderedDict()
        self._outputs: OrderedDict[_Key, _Output] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that are kept."""
        return nbytes(self._whole) + sum(output.nbytes for output in self._outputs.values())

    def forget(self) -> None:
        """Drop all steps: the next ones are of another image, or begin with another mask."""
        self._whole.clear()
        self._outputs.clear()

    def longest(
        self, sources: Sequence[str] | None, clicks: tuple[Click, ...], box: Box | None
    ) -> Step | None:
        """Find the last known step of a click list.

        Without a box, the step without clicks leads to no click list: the first click does not build on it.

        Args:
            sources: Names of the references (`ReferenceTokens.sources`); None without any.
            clicks: All clicks of the list.
            box: Box of the list.

        Returns:
            The step of the longest part of the list that is kept; None if none is.
        """
        shortest = 0 if box is not None else min(1, len(clicks))
        for count in range(len(clicks), shortest - 1, -1):
            step = self._find((None if sources is None else tuple(sources), box, clicks[:count]))
            if step is not None:
                return step
        return None

    def keep(self, sources: Sequence[str] | None, step: Step) -> None:
        """Keep a step. Its masks must come from the network (`model.candidate_masks`)."""
        self._keep((None if sources is None else tuple(sources), step.box, step.clicks), step)

    def _find(self, key: _Key) -> Step | None:
        step = self._whole.get(key)
        if step is None and key in self._outputs:
            output = self._outputs.pop(key)
            result = chosen_mask(output.masks, output.chosen)
            step = Step(key[1], key[2], result, output.zoom_crop)
        if step is not None:
            self._keep(key, step)
        return step

    def _keep(self, key: _Key, step: Step) -> None:
        self._whole[key] = step
        self._whole.move_to_end(key)
        while len(self._whole) > WHOLE_STEPS:
            oldest, whole = self._whole.popitem(last=False)
            found = whole.result.candidates
            masks = tuple(mask.uncomputed() for mask in found if isinstance(mask, CropMask | MeanMask))
            self._outputs[oldest] = _Output(masks, whole.result.chosen, whole.zoom_crop)
        while len(self._outputs) > KEPT_STEPS:
            self._outputs.popitem(last=False)
