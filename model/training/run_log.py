"""What a run writes down of itself: one line a step in steps.jsonl, the same for TensorBoard, and a picture."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

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


class Events:
    """One event file. TensorBoard drops what earlier files of the folder hold from `first_step` on."""

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Figures of one step, counted from the beginning of the run."""
        for name, value in figures.items():
            self._write(step, summary=scalar(name, value))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, step: int, **content: object) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))


STEPS_FILE = "steps.jsonl"
CURVES_FILE = "curves.png"
EVENTS_DIR = "tensorboard"


@dataclass(frozen=True)
class StepRecord:
    """One step. stage, step: counted from 0 and 1. iou: of the masks that the loss was computed on.

    rate: learning rate as a share of each parameter's own.
    """

    stage: int
    px: int
    step: int
    loss: float
    iou: float
    rate: float


class RunLog:
    """The log of one run, which holds every step once, however often the run was killed. A context that closes files."""

    def __init__(self, run_dir: Path, stages: Sequence[Stage]) -> None:
        self._run_dir = run_dir
        self._stages = stages
        self._events: Events | None = None

    @property
    def path(self) -> Path:
        return self._run_dir / STEPS_FILE

    def rewind(self, stage: int, steps: int) -> None:
        """Forgets all after `steps` steps of a stage: they came after the checkpoint and will be taken again."""
        kept = [record for record in self.read() if (record.stage, record.step) <= (stage, steps)]
        temporary = self.path.with_suffix(".partial")
        temporary.write_text("".join(_line(record) for record in kept))
        os.replace(temporary, self.path)

    def read(self) -> list[StepRecord]:
        """All steps; a last line that a kill cut short is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines(keepends=True)
        return [StepRecord(**json.loads(line)) for line in lines if line.endswith("\n")]

    def append(self, record: StepRecord) -> None:
        with self.path.open("a") as log:
            log.write(_line(record))
        step = sum(stage.steps for stage in self._stages[: record.stage]) + record.step
        if self._events is None:
            self._events = Events(self._run_dir / EVENTS_DIR, step)
        self._events.add(step, {"loss": record.loss, "iou": record.iou, "rate": record.rate})

    def flush(self) -> None:
        """Makes all so far visible to TensorBoard, and draws the curves."""
        if self._events is not None:
            self._events.flush()
        records = self.read()
        if records:
            draw_curves(self._run_dir / CURVES_FILE, records, self._stages)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None


def _line(record: StepRecord) -> str:
    return json.dumps(asdict(record)) + "\n"
