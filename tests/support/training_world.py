"""A project in a Label Studio in memory, with photographs, and all that trains it on one database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.data.snapshot import Snapshot, read_snapshot
from refcut_backend.settings import Settings
from refcut_backend.training.new_annotations import AnnotationCounts, NewAnnotations
from refcut_backend.training.pipeline import ProjectTraining
from refcut_backend.training.runs import RequestedBy, Run, TrainingRuns
from refcut_backend.training.snapshot import SNAPSHOT_DIR, SnapshotMaker
from refcut_backend.training.worker import TrainingWorker
from tests.support.fake_learner import FakeLearner
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.recorded import brush_result
from tests.support.registry import Registry, open_registry

SIZE_HW = (20, 60)


def photograph(number: int, size_hw: tuple[int, int] = SIZE_HW) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) that no other number has."""
    return np.random.default_rng(number).integers(0, 255, (*size_hw, 3), dtype=np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode pixels (H, W, 3) as PNG."""
    ok, data = cv2.imencode(".png", pixels)
    assert ok
    return data.tobytes()


def mask(left: int, size_hw: tuple[int, int] = SIZE_HW) -> NDArray[np.bool_]:
    """A mask (H, W) with a square whose left edge is at `left`."""
    mask_hw = np.zeros(size_hw, bool)
    mask_hw[5:12, left : left + 7] = True
    return mask_hw


def parts(door: int = 5, wheel: int = 30) -> list[dict[str, Any]]:
    """Brush regions of a door and a wheel, at these left edges."""
    return [brush_result("d", "Door", mask(door)), brush_result("w", "Wheel", mask(wheel))]


@dataclass
class World:
    """learner: what trains. stop_requested: as the worker's process has it."""

    folder: Path
    api: LabelStudioApi
    registry: Registry
    learner: FakeLearner
    stop_event: threading.Event

    def __post_init__(self) -> None:
        self.settings = Settings(state_dir=self.folder, image_cache_max_bytes=16 * 2**20)
        self.runs = TrainingRuns(self.registry.engine)
        self.new_annotations = NewAnnotations(self.registry.engine)

    @property
    def project(self) -> int:
        """Id of the project."""
        return self.api.project_id

    def annotate(self, task: int, *result: dict[str, Any], photo: int | None = None) -> dict[str, Any]:
        """A submitted annotation of the same number on a photograph; returns the webhook."""
        name = f"{task}.png"
        self.api.images.setdefault(name, png(photograph(task if photo is None else photo)))
        return self.api.annotate(task, task, *(result or parts()))

    def annotate_many(self, count: int, first: int = 1) -> None:
        """Annotate `count` tasks from `first` on, and tell the web process of each."""
        for task in range(first, first + count):
            self.registry.follow(self.annotate(task))

    def counts(self) -> AnnotationCounts:
        """Counts of new annotations of the project."""
        return self.new_annotations.of(self.project)

    def worker(
        self, name: str = "trainer", put_back: Callable[[str], None] = lambda run: None
    ) -> TrainingWorker:
        """A training worker of this process."""
        maker = SnapshotMaker(self.settings, self.registry.engine)
        keep = self.settings.train_keep_runs
        training = ProjectTraining(self.settings.training_dir, maker, self.new_annotations, keep)
        return TrainingWorker(
            name, self.runs, training, lambda: self.learner, put_back, self.stop_event, beat_s=0.05
        )

    def train(self) -> Run:
        """Asks for a training, does it in this process, and returns how it ended."""
        run, _ = self.runs.request(self.project, RequestedBy.COMMAND)
        self.worker().work_on(run.id)
        ended = self.runs.of(run.id)
        assert ended is not None
        return ended

    def snapshot(self, run: Run) -> Snapshot:
        """Read the snapshot that a run was trained on."""
        return read_snapshot(self.settings.training_dir / str(self.project) / run.id / SNAPSHOT_DIR)


@contextmanager
def open_world(folder: Path, api: LabelStudioApi | None = None) -> Iterator[World]:
    """A connected project without annotations."""
    with serving(api or LabelStudioApi()) as served, open_registry(folder) as registry:
        registry.connect(served)
        store = folder / "models"
        store.mkdir(exist_ok=True)
        yield World(folder, served, registry, FakeLearner(store), threading.Event())
