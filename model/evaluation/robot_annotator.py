"""The robot annotator of the literature: clicks the middle of the largest error (SimpleClick's clicker)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.masks import distance_inside, intersection_over_union
from model.network.prompts import ReferenceTokens
from model.predictor import MaskResult
from model.types import BoolMask, Click


class Clicker:
    """Clicks on one target until told to stop. Never clicks a pixel twice.

    ignored pixels (`ignore_hw`) count neither as missed nor as too much.
    """

    def __init__(self, target_hw: BoolMask, ignore_hw: BoolMask | None = None) -> None:
        self._target = target_hw
        self._valid = np.ones_like(target_hw) if ignore_hw is None else ~ignore_hw
        self._free = np.ones_like(target_hw)

    def next_click(self, mask_hw: BoolMask) -> Click:
        """The click that follows the mask (H, W) shown now: positive iff the deepest miss is deeper than the deepest
        excess (a tie is negative)."""
        missed = distance_inside(self._target & ~mask_hw & self._valid) * self._free
        excess = distance_inside(~self._target & mask_hw & self._valid) * self._free
        positive = bool(missed.max() > excess.max())
        distance = missed if positive else excess
        row, col = np.unravel_index(int(distance.argmax()), distance.shape)
        self._free[row, col] = False
        return Click(float(row), float(col), positive)


STOP_IOU = 0.9
"""The robot is content from here on; one run up to it gives the number of clicks at every lower IoU too."""


class Predictor(Protocol):
    """What an evaluation needs of `model.predictor.RefCutPredictor`."""

    def set_image(self, image_rgb: NDArray[np.uint8]) -> None: ...

    def set_reference(self, reference: ReferenceTokens | None) -> None: ...

    def encode_reference(
        self,
        image_rgb: NDArray[np.uint8],
        positive_hw: NDArray[np.bool_] | None,
        negative_hw: NDArray[np.bool_] | None,
    ) -> ReferenceTokens: ...

    def predict(self, clicks: Sequence[Click]) -> MaskResult: ...


@dataclass(frozen=True)
class Session:
    """ious and seconds: one value a click. removed: for each negative click, which share of the piece of excess that it
    points at was gone afterwards. first_mask_hw: the mask (H, W) after the first click."""

    clicks: list[Click]
    ious: list[float]
    seconds: list[float]
    removed: list[float]
    first_mask_hw: BoolMask


def annotate(
    predictor: Predictor,
    target_hw: BoolMask,
    robot: Clicker,
    *,
    max_clicks: int,
    min_clicks: int,
    stop_iou: float = STOP_IOU,
) -> Session:
    """Clicks until the IoU is `stop_iou`, but at least `min_clicks` and at most `max_clicks` times (from 1).

    The predictor must have its image and reference.
    """
    mask_hw = np.zeros_like(target_hw)
    first_mask_hw = mask_hw
    clicks: list[Click] = []
    ious: list[float] = []
    seconds: list[float] = []
    removed: list[float] = []
    while len(clicks) < max_clicks and not (len(clicks) >= min_clicks and ious[-1] >= stop_iou):
        click = robot.next_click(mask_hw)
        clicks.append(click)
        started = time.perf_counter()
        after_hw = predictor.predict(clicks).mask_hw
        seconds.append(time.perf_counter() - started)
        if not click.positive:
            removed.append(removed_share(click, ~target_hw & mask_hw, after_hw))
        mask_hw = after_hw
        ious.append(intersection_over_union(target_hw, mask_hw))
        if len(clicks) == 1:
            first_mask_hw = mask_hw
    return Session(clicks, ious, seconds, removed, first_mask_hw)


def removed_share(click: Click, excess_hw: BoolMask, after_hw: BoolMask) -> float:
    """Share of the piece of excess (H, W) under a negative click that the mask afterwards no longer has; a click
    beside any excess (all is well already) counts as 1 if its own pixel is off."""
    _, pieces = cv2.connectedComponents(excess_hw.astype(np.uint8), connectivity=8)
    place = int(click.row), int(click.col)
    if not pieces[place]:
        return float(not after_hw[place])
    piece_hw = pieces == pieces[place]
    return 1 - np.count_nonzero(piece_hw & after_hw) / np.count_nonzero(piece_hw)


SPREAD = 0.5
"""Standard deviation of a click, as a share of how deep the middle of the error lies inside it."""
ATTEMPTS = 8


class JitteredClicker(Clicker):
    """Aims at the middle of the largest error and lands beside it, but on the error: people see what they click on."""

    def __init__(self, target_hw: BoolMask, rng: Generator) -> None:
        super().__init__(target_hw)
        self._rng = rng

    def next_click(self, mask_hw: BoolMask) -> Click:
        aimed = super().next_click(mask_hw)
        error = (self._target & ~mask_hw) if aimed.positive else (~self._target & mask_hw)
        middle = np.array([aimed.row, aimed.col])
        depth = float(distance_inside(error)[int(aimed.row), int(aimed.col)])
        for _ in range(ATTEMPTS):
            row, col = np.round(middle + self._rng.normal(0, SPREAD * depth, 2)).astype(int)
            inside = 0 <= row < error.shape[0] and 0 <= col < error.shape[1]
            if inside and error[row, col] and self._free[row, col]:
                self._free[int(aimed.row), int(aimed.col)] = True
                self._free[row, col] = False
                return Click(float(row), float(col), aimed.positive)
        return aimed
