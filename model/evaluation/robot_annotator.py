"""The robot annotator: clicks on a mask as the literature's simulated user does, and records what each click achieves.

`Clicker` chooses the next click (SimpleClick's `Clicker`: the middle of the largest error). `annotate` runs one session
on one mask. `RobotAnnotator` runs sessions on many masks and encodes each image once; evaluation, comparison of two
versions and early stopping all use it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.data.annotated_objects import AnnotatedObject
from model.masks import distance_inside, intersection_over_union
from model.network.prompts import ReferenceTokens
from model.types import BoolMask, Click, MaskResult


class Clicker:
    """Chooses clicks on one target, one after another. It never clicks on a pixel twice.

    Example:
        >>> target_hw = np.zeros((9, 9), bool)
        >>> target_hw[2:7, 2:7] = True
        >>> Clicker(target_hw).next_click(np.zeros_like(target_hw))
        Click(row=4.0, col=4.0, positive=True)
    """

    def __init__(self, target_hw: BoolMask, ignore_hw: BoolMask | None = None) -> None:
        """Start on a target.

        Args:
            target_hw: The mask to be annotated (H, W).
            ignore_hw: Pixels that count neither as missed nor as excess (H, W); None ignores none.
        """
        self._target = target_hw
        self._valid = np.ones_like(target_hw) if ignore_hw is None else ~ignore_hw
        self._free = np.ones_like(target_hw)

    def next_click(self, mask_hw: BoolMask) -> Click:
        """Choose the click that follows a mask.

        Args:
            mask_hw: The mask shown to the annotator (H, W); all False before the first click.

        Returns:
            A click in the middle of the largest error. It is positive if the deepest missed pixel is deeper than the
            deepest excess pixel; a tie is negative, as in SimpleClick.
        """
        missed = distance_inside(self._target & ~mask_hw & self._valid) * self._free
        excess = distance_inside(~self._target & mask_hw & self._valid) * self._free
        positive = bool(missed.max() > excess.max())
        distance = missed if positive else excess
        row, col = np.unravel_index(int(distance.argmax()), distance.shape)
        self._free[row, col] = False
        return Click(float(row), float(col), positive)


SPREAD = 0.5
"""Standard deviation of a jittered click, as a share of the depth of the error's middle."""
ATTEMPTS = 8


class JitteredClicker(Clicker):
    """Clicks beside the middle of the largest error, but still on the error, as people do."""

    def __init__(self, target_hw: BoolMask, rng: Generator) -> None:
        """Start on a target (H, W); `rng` draws the offsets."""
        super().__init__(target_hw)
        self._rng = rng

    def next_click(self, mask_hw: BoolMask) -> Click:
        """Choose the click that follows a mask (H, W); see `Clicker.next_click`."""
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


STOP_IOU = 0.9
"""A session ends at this IoU. Sessions up to here give the number of clicks to every lower IoU, too."""


class ClickPredictor(Protocol):
    """What answers the clicks of a session: a predictor, or a backend over HTTP."""

    def predict(self, clicks: Sequence[Click]) -> MaskResult:
        """Segment the current image by all clicks so far, oldest first."""


class Predictor(ClickPredictor, Protocol):
    """The methods of `model.predictor.RefCutPredictor` that an evaluation calls."""

    def set_image(self, image_rgb: NDArray[np.uint8]) -> None:
        """Encode an image (H, W, 3)."""

    def set_reference(self, reference: ReferenceTokens | None) -> None:
        """Use a reference from now on, or none."""

    def encode_reference(
        self,
        image_rgb: NDArray[np.uint8],
        positive_hw: NDArray[np.bool_] | None,
        negative_hw: NDArray[np.bool_] | None,
    ) -> ReferenceTokens:
        """Encode an image and its masks as a reference."""


@dataclass(frozen=True)
class Session:
    """What came of annotating one mask.

    Attributes:
        clicks: Clicks in order, in pixels of the image.
        ious: IoU after each click, 0 to 1.
        seconds: Seconds that the predictor took for each click.
        removed: For each negative click, the share of the connected excess under it that is gone afterwards, 0 to 1.
        first_mask_hw: Mask after the first click (H, W).
        start_iou: IoU of the mask before the first click; None if the session began without a mask.
        expected_ious: IoU that the predictor expected its mask to have, after each click; empty if it expects none.
        candidate_ious: IoU of each mask that the predictor proposed for the first click; empty if it proposes none.
    """

    clicks: list[Click]
    ious: list[float]
    seconds: list[float]
    removed: list[float]
    first_mask_hw: BoolMask
    start_iou: float | None = None
    expected_ious: list[float] = field(default_factory=list)
    candidate_ious: list[float] = field(default_factory=list)


class RobotAnnotator:
    """Annotates masks with one predictor. Masks of one image should follow each other: the image is then encoded once."""

    def __init__(
        self, predictor: Predictor, *, max_clicks: int, min_clicks: int, stop_iou: float = STOP_IOU
    ) -> None:
        """Set the limits of every session; see `annotate`."""
        self._predictor = predictor
        self._max_clicks = max_clicks
        self._min_clicks = min_clicks
        self._stop_iou = stop_iou
        self._image_path: Path | None = None

    def annotate(
        self,
        annotated_object: AnnotatedObject,
        target_hw: BoolMask,
        reference: ReferenceTokens | None,
        clicker: Clicker | None = None,
        start_hw: BoolMask | None = None,
    ) -> Session:
        """Annotate one mask. The predictor keeps image and reference afterwards.

        Args:
            annotated_object: The image.
            target_hw: The mask to be annotated (H, W), in the image frame.
            reference: The reference, or None for clicks alone.
            clicker: Chooses the clicks; None takes a `Clicker` on the target.
            start_hw: Mask that the predictor builds the first click on (H, W); None for the usual session without.
        """
        self.show(annotated_object)
        self._predictor.set_reference(reference)
        return annotate(
            self._predictor,
            target_hw,
            clicker or Clicker(target_hw),
            max_clicks=self._max_clicks,
            min_clicks=self._min_clicks,
            stop_iou=self._stop_iou,
            start_hw=start_hw,
        )

    def show(self, annotated_object: AnnotatedObject) -> None:
        """Set the predictor's image, unless it is set already."""
        if annotated_object.image_path != self._image_path:
            self._predictor.set_image(annotated_object.image())
            self._image_path = annotated_object.image_path


def annotate(
    predictor: ClickPredictor,
    target_hw: BoolMask,
    clicker: Clicker,
    *,
    max_clicks: int,
    min_clicks: int,
    stop_iou: float = STOP_IOU,
    start_hw: BoolMask | None = None,
) -> Session:
    """Click until the mask is good enough.

    Args:
        predictor: Its image and reference must be set.
        target_hw: The mask to be annotated (H, W).
        clicker: Chooses the clicks.
        max_clicks: Number of clicks after which the session ends, from 1.
        min_clicks: Number of clicks before which it does not end.
        stop_iou: IoU at which it ends.
        start_hw: Mask shown before the first click (H, W); None shows none.
    """
    mask_hw = np.zeros_like(target_hw) if start_hw is None else start_hw
    first_mask_hw = mask_hw
    clicks: list[Click] = []
    ious: list[float] = []
    seconds: list[float] = []
    removed: list[float] = []
    expected: list[float] = []
    candidate_ious: list[float] = []
    while len(clicks) < max_clicks and not (len(clicks) >= min_clicks and ious[-1] >= stop_iou):
        click = clicker.next_click(mask_hw)
        clicks.append(click)
        started = time.perf_counter()
        result = predictor.predict(clicks)
        after_hw = result.mask_hw
        seconds.append(time.perf_counter() - started)
        if result.expected_iou is not None:
            expected.append(result.expected_iou)
        if not click.positive:
            removed.append(removed_share(click, ~target_hw & mask_hw, after_hw))
        mask_hw = after_hw
        ious.append(intersection_over_union(target_hw, mask_hw))
        if len(clicks) == 1:
            first_mask_hw = mask_hw
            candidate_ious = [intersection_over_union(target_hw, one.mask_hw) for one in result.candidates]
    start_iou = None if start_hw is None else intersection_over_union(target_hw, start_hw)
    return Session(clicks, ious, seconds, removed, first_mask_hw, start_iou, expected, candidate_ious)


def removed_share(click: Click, excess_hw: BoolMask, after_hw: BoolMask) -> float:
    """Measure what a negative click takes away.

    Args:
        click: A negative click.
        excess_hw: Excess pixels before the click (H, W).
        after_hw: Mask after the click (H, W).

    Returns:
        The share of the connected piece of excess under the click that is gone afterwards. A click outside any excess
        counts as 1 if its own pixel is off afterwards, else as 0.
    """
    _, pieces = cv2.connectedComponents(excess_hw.astype(np.uint8), connectivity=8)
    pixel = int(click.row), int(click.col)
    if not pieces[pixel]:
        return float(not after_hw[pixel])
    piece_hw = pieces == pieces[pixel]
    return 1 - np.count_nonzero(piece_hw & after_hw) / np.count_nonzero(piece_hw)
