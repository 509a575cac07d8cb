"""Milliseconds a click, and where they go: `python -m benchmarks.click_latency [--rounds N] [--threads N]`.

For the model that ships and for a ViT-B in SimpleClick's shape (random weights: time does not depend on them), as torch in
float32, as torch in bfloat16, and as it is served (`REFCUT_RUNTIME=auto`). One photograph, the same clicks for all; the
forms take turns, so that a drifting machine hits all alike. Medians; the first round is thrown away. The last columns say how
many times as fast as torch in float32 a form is, and how many pixels of the first click's mask differ from that.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import PRESETS
from model.geometry import Roi
from model.images import read_image
from model.network.refcut import RefCut
from model.predictor import RefCutPredictor
from model.predictor_settings import PredictorSettings, serving_settings
from model.robot_clicker import Click
from model.runtime.choose import with_runtime
from model.runtime.stages import NetworkStages
from model.weights import load_network

T = TypeVar("T")
PHOTOGRAPH = Path(__file__).parents[1] / "label_studio_demo" / "car_parts_te66.jpg"
REFERENCE = Path(__file__).parents[1] / "label_studio_demo" / "car_parts_car118.jpg"
STEPS = ("reference", "first click", "later click", "click that moves the crop")
BASELINE = "torch fp32"


class Case:
    """One network in one form. Two looks at a first click where the form is served so."""

    def __init__(self, stages: NetworkStages, settings: PredictorSettings) -> None:
        self._predictor = RefCutPredictor(stages, settings)
        self._image = read_image(PHOTOGRAPH)
        self._reference = read_image(REFERENCE)
        self.milliseconds: dict[str, list[float]] = defaultdict(list)
        self.first_mask: NDArray[np.bool_] | None = None

    def measure(self) -> None:
        """One round: a reference, the first click on a fresh image, one more, and one somewhere else."""
        predictor, (height, width) = self._predictor, self._image.shape[:2]
        mask_hw = np.zeros(self._reference.shape[:2], bool)
        mask_hw[100:250, 150:300] = True
        first, second = Click(height * 0.55, width * 0.4), Click(height * 0.55, width * 0.42)
        reference = self._timed("reference", lambda: predictor.encode_reference(self._reference, mask_hw, None))
        predictor.set_image(self._image)
        predictor.set_reference(reference)
        result = self._timed("first click", lambda: predictor.predict([first]))
        self.first_mask = result.mask_hw
        again = predictor.predict([first, second])
        # Once more: whether the second click moved the crop is not what "later click" is about.
        third = Click(height * 0.56, width * 0.41)
        later = self._timed("later click", lambda: predictor.predict([first, second, third]))
        far = _outside(later.roi, height, width)
        moved = self._timed("click that moves the crop", lambda: predictor.predict([first, second, third, far]))
        if later.roi != again.roi or moved.roi == later.roi:
            raise RuntimeError("the clicks did not do what their names say; choose others")

    def _timed(self, name: str, action: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = action()
        self.milliseconds[name].append(1000 * (time.perf_counter() - started))
        return result


def _outside(roi: Roi, height: int, width: int) -> Click:
    """A positive click where the crop is not. Raises RuntimeError when it is everywhere."""
    corners = [(row, col) for row in (2, height - 3) for col in (2, width - 3)]
    for row, col in corners:
        if not (roi.rmin <= row < roi.rmax and roi.cmin <= col < roi.cmax):
            return Click(float(row), float(col))
    raise RuntimeError("the crop is the whole image; choose another first click")


def random_vit_b() -> RefCut:
    """A ViT-B in SimpleClick's shape whose masks are not all or nothing."""
    torch.manual_seed(0)
    return RefCut(PRESETS["vit_b16"]).eval()
