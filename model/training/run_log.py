"""The log of a training run: one line per step in `steps.jsonl`, TensorBoard events, and a picture of the curves.

`steps.jsonl` is the source: it holds every step exactly once, however often the run was killed and resumed. Events and
picture are made from it while the run is going on.
"""

from __future__ import annotations

import json
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

from model.files import atomic_write
from model.training.config import Stage

SMOOTHED_SHARE = 0.1
"""Each point of the smooth line is the mean over the last steps: this share of the stage, and at least 5 steps."""


class Step(Protocol):
    """The values of a step that `draw_curves` needs; see `StepRecord`."""

    @property
    def stage(self) -> int:
        """Number of the stage, from 0."""

    @property
    def step(self) -> int:
        """Step within the stage, from 1."""

    @property
    def loss(self) -> float:
        """Training loss."""

    @property
    def iou(self) -> float:
        """IoU in training, 0 to 1."""


def draw_curves(path: Path, records: Sequence[Step], stages: Sequence[Stage]) -> None:
    """Draw loss and IoU over the steps into a PNG. The file is replaced atomically.

    Args:
        path: The PNG.
        records: At least one step, in order.
        stages: All stages of the run, with their lengths in steps.
    """
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
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the moving average of each value and those before it.

    Args:
        values: (N,) float.

    Returns:
        (N,) float; the window has `SMOOTHED_SHARE` of N values, but at least 5.
    """
    window = max(5, round(SMOOTHED_SHARE * len(values)))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - window, 0)
    return (sums[ends] - sums[begins]) / (ends - begins)  # type: ignore[no-any-return]


class Events:
    """A TensorBoard event file whose content is on disk when `flush` returns.

    tensorboardX's `SummaryWriter` does not give that promise: it writes in a background thread, and its `flush` does not
    wait for events that are still queued.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """Start a new file in `folder`. TensorBoard then ignores steps from `first_step` on in earlier files."""
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Write the values of one step.

        Args:
            step: Step counted from the start of the run.
            figures: Value by name of its curve.
        """
        for name, value in figures.items():
            self._write(step, summary=scalar(name, value))

    def flush(self) -> None:
        """Write everything to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Write everything to disk and close the file."""
        self._writer.close()

    def _write(self, step: int, **content: object) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))


STEPS_FILE = "steps.jsonl"
CURVES_FILE = "curves.png"
EVENTS_DIR = "tensorboard"


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step, as it is written to `steps.jsonl`.

    Attributes:
        stage: Number of the stage, from 0.
        px: Side of the crops in pixels.
        step: Step within the stage, from 1.
        loss: Mean loss over all targets of the step.
        iou: Mean IoU of the masks that the loss was computed on, 0 to 1.
        rate: Learning rate as a share of each parameter's base rate.
    """

    stage: int
    px: int
    step: int
    loss: float
    iou: float
    rate: float


class RunLog:
    """The log of one run. A context manager that closes the event file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with RunLog(Path(folder), [Stage(size_px=224, steps=2)]) as log:
        ...         log.append(StepRecord(stage=0, px=224, step=1, loss=0.5, iou=0.7, rate=1.0))
        ...     log.read()[0].loss
        0.5
    """

    def __init__(self, run_dir: Path, stages: Sequence[Stage]) -> None:
        """Use the log in `run_dir`; no file is written yet. `stages` have their lengths in steps."""
        self._run_dir = run_dir
        self._stages = stages
        self._events: Events | None = None

    @property
    def path(self) -> Path:
        """The file with one line per step."""
        return self._run_dir / STEPS_FILE

    def rewind(self, stage: int, steps: int) -> None:
        """Drop the steps after a checkpoint, because a resumed run takes them again.

        Args:
            stage: Stage of the checkpoint.
            steps: Number of steps of that stage that the checkpoint includes.
        """
        before = [record for record in self.read() if (record.stage, record.step) <= (stage, steps)]
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(_line(record) for record in before))

    def read(self) -> list[StepRecord]:
        """Return all steps in order. An incomplete last line, left by a killed run, is ignored."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines(keepends=True)
        return [StepRecord(**json.loads(line)) for line in lines if line.endswith("\n")]

    def append(self, record: StepRecord) -> None:
        """Write one step to the log and to TensorBoard."""
        with self.path.open("a") as log:
            log.write(_line(record))
        step = sum(stage.steps for stage in self._stages[: record.stage]) + record.step
        if self._events is None:
            self._events = Events(self._run_dir / EVENTS_DIR, step)
        self._events.add(step, {"loss": record.loss, "iou": record.iou, "rate": record.rate})

    def flush(self) -> None:
        """Make all steps so far visible to TensorBoard and draw the curves."""
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
