"""A run's figures for TensorBoard. Written at once: tensorboardX's own writer may still hold what a kill then takes."""

from __future__ import annotations

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


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
