"""Milliseconds per click, and where they go.

    python -m benchmarks.click_latency [--rounds N] [--threads N] [--references N] [--networks NAME ...]

For the model that ships and for a ViT-B in SimpleClick's shape (random weights: time does not depend on them), as torch
in float32, as torch in bfloat16, as OpenVINO in float32, and as it is served (`REFCUT_RUNTIME=auto`). One photograph, the
same clicks for all; the forms take turns, so that a drifting machine hits all alike. Medians of the time that passes, and
in brackets of the processor time of all threads, which says more on a busy machine; the first round is thrown away. The
last columns say how many times as fast as torch in float32 a form is. `runtime_differences` compares the masks.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from model.checkpoints.weights import load_network
from model.images import read_image, read_mask
from model.network.config import PRESETS
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.predictor import RefCutPredictor
from model.predictor_config import PredictorSettings, serving_settings
from model.runtime.base import NetworkStages
from model.runtime.openvino import OpenVinoStages
from model.runtime.select import with_runtime
from model.types import Click

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
PHOTOGRAPH = ROOT / "label_studio_demo" / "car_parts_te66.jpg"
REFERENCE = ROOT / "label_studio_demo" / "car_parts_car118.jpg"
REFERENCE_MASK = ROOT / "label_studio_demo" / "car_parts_car118_wheel.png"
STEPS = (
    "reference",
    "first click, photograph new",
    "first click, task opened",
    "later click",
    "click that moves the crop",
)
BASELINE = "torch fp32"


class Case:
    """One network in one form. Two looks at a first click where the form is served so."""

    def __init__(self, stages: NetworkStages, settings: PredictorSettings, references: int) -> None:
        self._predictor = RefCutPredictor(stages, settings)
        # As in a worker: see `refcut_backend.inference.load_model.leave_cores_to_openvino`.
        self._torch_threads = 1 if isinstance(stages, OpenVinoStages) else torch.get_num_threads()
        self._references = references
        self._image = read_image(PHOTOGRAPH)
        self._reference = read_image(REFERENCE)
        self.milliseconds: dict[str, list[float]] = defaultdict(list)
        self.processor_ms: dict[str, list[float]] = defaultdict(list)

    def measure(self) -> None:
        """Measure one round: a reference, two ways of a first click, and two ways of a second click.

        The first click falls once on a photograph that is new, and once on one that was prepared when its task opened.
        The second click falls once into a crop that is encoded already, and once moves the crop, which is encoded first.
        """
        torch.set_num_threads(self._torch_threads)
        predictor, (height, width) = self._predictor, self._image.shape[:2]
        mask_hw = read_mask(REFERENCE_MASK, (self._reference.shape[0], self._reference.shape[1]))
        # On a wheel, which is small: s14 looks at it twice.
        clicks = [Click(height * 0.65, width * 0.49), Click(height * 0.65, width * 0.47)]
        # The same click to the network, and another one to the steps that the predictor keeps.
        nearly = [[clicks[0], Click(clicks[1].row + part, clicks[1].col)] for part in (0.001, 0.002)]
        reference = self._timed(
            "reference", lambda: predictor.encode_reference(self._reference, mask_hw, None)
        )
        reference = ReferenceTokens.join([reference] * self._references)
        predictor.set_image(self._image)
        predictor.set_reference(reference)
        self._timed("first click, photograph new", lambda: predictor.predict(clicks[:1]))
        predictor.set_image(self._image)
        predictor.preload(reference)
        self._timed("first click, task opened", lambda: predictor.predict(clicks[:1]))
        predictor.predict(clicks)
        self._timed("later click", lambda: predictor.predict(nearly[0]))
        predictor._features.forget()
        self._timed("click that moves the crop", lambda: predictor.predict(nearly[1]))

    def _timed(self, name: str, action: Callable[[], T]) -> T:
        started, spent = time.perf_counter(), time.process_time()
        result = action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.milliseconds[name].append(1000 * (time.perf_counter() - started))
        self.processor_ms[name].append(1000 * (time.process_time() - spent))
        return result


def cases(names: Sequence[str], references: int) -> dict[str, dict[str, Case]]:
    """Network to form to case."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    makers = {"s14": load_network, "vit_b16": lambda: RefCut(PRESETS["vit_b16"]).eval()}
    out = {}
    for name in names:
        network = makers[name]().to(device)
        settings = serving_settings(network.config)
        served = with_runtime(network, settings, "auto")
        forms = {
            BASELINE: Case(network, settings, references),
            "torch bf16": Case(network, dataclasses.replace(settings, bfloat16=True), references),
        }
        if isinstance(served, OpenVinoStages):
            exact = OpenVinoStages(network, settings.network_px, None, bfloat16=False)
            forms["OpenVINO fp32"] = Case(exact, settings, references)
        forms[f"served ({type(served).__name__})"] = Case(served, settings, references)
        out[f"{name}, {settings.network_px} px"] = forms
    return out


def table(measured: dict[str, dict[str, Case]], rounds: int) -> str:
    """Medians as Markdown."""
    heads = [*STEPS, "times as fast (later click)", "(moved crop)"]
    lines = [f"| median of {rounds}, ms | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for name, forms in measured.items():
        medians = {
            form: {step: statistics.median(case.milliseconds[step][1:]) for step in STEPS}
            for form, case in forms.items()
        }
        for form, case in forms.items():
            spent = {step: statistics.median(case.processor_ms[step][1:]) for step in STEPS}
            row = [f"{medians[form][step]:.0f} ({spent[step]:.0f})" for step in STEPS]
            row += [f"{medians[BASELINE][step] / medians[form][step]:.2f}" for step in STEPS[-2:]]
            lines.append(f"| {name}: {form} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def device_name() -> str:
    """What computes the clicks: the GPU's name, or else the processor's."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine()
    )


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--references", type=int, default=1, help="references of the label")
    parser.add_argument("--networks", nargs="+", choices=("s14", "vit_b16"), default=["s14", "vit_b16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    measured = cases(arguments.networks, arguments.references)
    for _ in range(arguments.rounds + 1):
        for forms in measured.values():
            for case in forms.values():
                case.measure()
    print(f"{device_name()}, {arguments.threads} threads, torch {torch.__version__}\n")
    print(table(measured, arguments.rounds))


if __name__ == "__main__":
    main()
