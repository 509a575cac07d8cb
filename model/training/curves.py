"""The picture of a run: loss and IoU by step, smoothed within each stage, with its stages marked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.training.config import Stage

SMOOTHED_SHARE = 0.1
"""Each point of the smooth line is the mean over so much of the stage before it, and over at least 5 steps."""


class Step(Protocol):
    """What is drawn of a step."""

    @property
    def stage(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def iou(self) -> float: ...


def draw_curves(path: Path, records: Sequence[Step], stages: Sequence[Stage]) -> None:
    """Writes a PNG of at least one step. A kill in the middle leaves the one before."""
    starts = np.concatenate([[0], np.cumsum([stage.steps for stage in stages])])
    of_stage = np.array([record.stage for record in records])
    steps = np.array([starts[record.stage] + record.step for record in records])
    figure = Figure(figsize=(9, 6), layout="constrained")
    for axes, name in zip(figure.subplots(2, 1, sharex=True), ("loss", "iou"), strict=True):
        values = np.array([getattr(record, name) for record in records])
        axes.plot(steps, values, color="C0", alpha=0.25, linewidth=0.8)
        for number in np.unique(of_stage):
            own = of_stage == number
            axes.plot(steps[own], smoothed(values[own]), color="C0")
        axes.set_ylabel({"loss": "loss", "iou": "IoU in training"}[name])
        axes.grid(alpha=0.3)
        for start, stage in zip(starts, stages, strict=False):
            axes.axvline(start, color="0.6", linewidth=0.8, linestyle="--")
            if name == "loss":
                axes.annotate(
                    f" {stage.size_px} px, {stage.loss.replace('_', ' ')}",
                    (start, 1),
                    xycoords=("data", "axes fraction"),
                    va="bottom",
                    fontsize="x-small",
                )
    axes.set_xlabel("step")
    axes.set_xlim(0, starts[-1])
    temporary = path.with_suffix(".partial")
    figure.savefig(temporary, dpi=120, format="png")
    os.replace(temporary, path)


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each value (N,) with those before it, as far back as `SMOOTHED_SHARE` says."""
    window = max(5, round(SMOOTHED_SHARE * len(values)))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - window, 0)
    return (sums[ends] - sums[begins]) / (ends - begins)  # type: ignore[no-any-return]
