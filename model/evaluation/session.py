"""One annotation of one target by a robot: clicks, and how good the mask was after each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from model.masks import intersection_over_union
from model.network.prompts import ReferenceTokens
from model.predictor import MaskResult
from model.robot_clicker import RobotClicker
from model.types import BoolMask, Click

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
    robot: RobotClicker,
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
