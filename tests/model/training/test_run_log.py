"""The log holds each step once, TensorBoard can read it, and the curves are a picture."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tensorboardX.proto.event_pb2 import Event

from model.training.config import Stage
from model.training.run_log import RunLog, StepRecord, smoothed

STAGES = [Stage(size_px=112, steps=3), Stage(size_px=224, steps=2, loss="normalised_focal")]


def record(stage: int, step: int, loss: float = 0.5) -> StepRecord:
    return StepRecord(stage, STAGES[stage].size_px, step, loss, 0.25, 1.0)


def events(folder: Path) -> Iterator[tuple[str, int, float]]:
    """(name, step, value) of all event files, read as TFRecord: length, its checksum, data, its checksum."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                yield value.tag, event.step, value.simple_value


def test_steps_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    written = [record(0, 1), record(0, 2), record(0, 3), record(1, 1), record(1, 2)]
    with RunLog(tmp_path, STAGES) as log:
        for one in written:
            log.append(one)
    with log.path.open("a") as file:
        file.write('{"stage": 1, "px": 22')
    assert log.read() == written
    log.rewind(1, 1)
    assert log.read() == written[:4]
    log.rewind(0, 2)
    with log:
        log.append(record(0, 3, loss=0.4))
    assert log.read() == [*written[:2], record(0, 3, loss=0.4)]


def test_tensorboard_reads_the_steps_counted_through_all_stages(tmp_path: Path) -> None:
    with RunLog(tmp_path, STAGES) as log:
        log.append(record(0, 3, loss=0.75))
        log.append(record(1, 2, loss=0.5))
        log.flush()
        found = list(events(tmp_path / "tensorboard"))
    assert ("loss", 3, 0.75) in found
    assert ("loss", 5, 0.5) in found
    assert ("iou", 5, 0.25) in found


def test_curves_are_drawn_from_the_first_step_on(tmp_path: Path) -> None:
    with RunLog(tmp_path, STAGES) as log:
        log.flush()
        assert not (tmp_path / "curves.png").exists()
        log.append(record(0, 1))
        log.flush()
        first = cv2.imread(str(tmp_path / "curves.png"))
        log.append(record(1, 2, loss=0.1))
        log.flush()
    second = cv2.imread(str(tmp_path / "curves.png"))
    assert first is not None
    assert second is not None
    assert first.shape == second.shape
    assert (first != second).any()


def test_smoothing_is_the_mean_of_what_came_before() -> None:
    values = np.arange(200, dtype=float)
    smooth = smoothed(values)
    assert smooth[0] == 0
    assert smooth[3] == 1.5
    assert smooth[199] == values[180:].mean()
