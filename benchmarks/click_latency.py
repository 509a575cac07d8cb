"""Milliseconds a click, and where they go: `python -m benchmarks.click_latency [--rounds N]`.

Times the parts of the network in the order in which a click needs them, on one photograph, interleaved over the settings,
so that a drifting machine hits all alike. Medians; the first round is thrown away.
"""

from __future__ import annotations

import argparse
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

from model.config import PRESETS
from model.images import read_image
from model.network.refcut import RefCut
from model.predictor import SERVING, RefCutPredictor
from model.predictor_settings import PredictorSettings
from model.robot_clicker import Click
from model.weights import load_network

T = TypeVar("T")
PHOTOGRAPH = Path(__file__).parents[1] / "label_studio_demo" / "car_parts_te66.jpg"
REFERENCE = Path(__file__).parents[1] / "label_studio_demo" / "car_parts_car118.jpg"


class Case:
    """One network in one precision."""

    def __init__(self, network: RefCut, settings: PredictorSettings) -> None:
        self._predictor = RefCutPredictor(network, settings)
        self._image = read_image(PHOTOGRAPH)
        self._reference = read_image(REFERENCE)
        self.milliseconds: dict[str, list[float]] = defaultdict(list)

    def measure(self) -> None:
        """One round: a reference, the first click on a fresh image, a second and a third click."""
        height, width = self._image.shape[:2]
        mask_hw = np.zeros(self._reference.shape[:2], bool)
        mask_hw[100:250, 150:300] = True
        clicks = [Click(height * 0.55, width * (0.4 + 0.02 * number)) for number in range(3)]
        reference = self._timed(
            "reference", lambda: self._predictor.encode_reference(self._reference, mask_hw, None)
        )
        self._predictor.set_image(self._image)
        self._predictor.set_reference(reference)
        self._timed("open image", self._predictor.warm)
        for count, name in ((1, "first click"), (2, "second click"), (3, "third click")):
            self._timed(name, lambda count=count: self._predictor.predict(clicks[:count]))  # type: ignore[misc]

    def _timed(self, name: str, action: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = action()
        self.milliseconds[name].append(1000 * (time.perf_counter() - started))
        return result


def cases() -> dict[str, Case]:
    """What is compared: what is served, each network in both precisions."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    served = load_network().to(device)
    large = RefCut(PRESETS["vit_b16"]).eval().to(device)
    out = {}
    for name, network, settings in (
        ("s14", served, SERVING),
        ("vit_b16 (random weights)", large, PredictorSettings()),
    ):
        for precision in (False, True):
            label = f"{name}, {settings.network_px} px, {'bf16' if precision else 'fp32'}"
            out[label] = Case(network, PredictorSettings(**{**vars(settings), "bfloat16": precision}))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    measured = cases()
    for _ in range(arguments.rounds + 1):
        for case in measured.values():
            case.measure()
    names = list(next(iter(measured.values())).milliseconds)
    print(
        f"{platform.processor() or platform.machine()}, {arguments.threads} threads, torch {torch.__version__}"
    )
    print(f"| median of {arguments.rounds}, ms | " + " | ".join(names) + " |")
    print("| --- |" + " ---: |" * len(names))
    for label, case in measured.items():
        row = [f"{statistics.median(case.milliseconds[name][1:]):.0f}" for name in names]
        print(f"| {label} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
