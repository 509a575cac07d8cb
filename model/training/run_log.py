"""What a run writes down of itself: one line a step in steps.jsonl, the same for TensorBoard, and a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from model.training.config import Stage
from model.training.curves import draw_curves
from model.training.events import Events

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
