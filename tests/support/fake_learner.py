"""A stand-in for what learns, judges and stores models: real files, no network.

`python -m tests.support.fake_learner --name NAME` is a training worker around it. FAKE_LEARNER tells it what to do,
as JSON:
`steps`, `step_s`, `checkpoint_every`, `promote`, `reasons`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.data.snapshot import Snapshot
from model.finetuning.config import Progress
from refcut_backend.logs import set_up_logging
from refcut_backend.settings import Settings, read_settings
from refcut_backend.training.learner import OnMask, OnProgress, PromotionDecision, Serving
from refcut_backend.training.process import run_training_worker

PARENT = "s14-parent00"


@dataclass
class FakeLearner:
    """A learner whose training is counting.

    Attributes:
        store: Folder with one folder per version, and a file `current-PROJECT` per project.
        steps: Steps of a training; each is written to `steps.log`.
        checkpoint_every: Steps between two checkpoints.
        on_step: Called after each step.
    """

    store: Path
    promote_it: bool = True
    reasons: tuple[str, ...] = ("first-click IoU .60 against .50",)
    steps: int = 4
    step_s: float = 0.0
    checkpoint_every: int = 1
    on_step: Callable[[int], None] = lambda step: None
    on_publish: Callable[[], None] = lambda: None
    seen: list[Snapshot] = field(default_factory=list)

    def serving(self, project_id: int) -> Serving:
        current = self.store / f"current-{project_id}"
        version = current.read_text() if current.exists() else PARENT
        folder = self.store / version
        folder.mkdir(parents=True, exist_ok=True)
        return Serving(version, folder)

    def fine_tune(self, snapshot: Snapshot, parent_dir: Path, run_dir: Path, on_progress: OnProgress) -> Path:
        assert parent_dir.is_dir()
        self.seen.append(snapshot)
        run_dir.mkdir(parents=True, exist_ok=True)
        checkpoint = run_dir / "checkpoint"
        done = int(checkpoint.read_text()) if checkpoint.exists() else 0
        for step in range(done + 1, self.steps + 1):
            time.sleep(self.step_s)
            with (self.store / "steps.log").open("a") as log:
                log.write(f"{os.getpid()} {step}\n")
            if step % self.checkpoint_every == 0:
                _write(checkpoint, str(step))
            self.on_step(step)
            on_progress(
                Progress("training", step, self.steps, (self.steps - step) * self.step_s, {"loss": 1 / step})
            )
        candidate = run_dir / "candidate"
        candidate.mkdir(exist_ok=True)
        for name in ("base.safetensors", "version.safetensors"):
            _write(candidate / name, snapshot.digest)
        return candidate

    def compare(
        self, snapshot: Snapshot, serving_dir: Path, candidate_dir: Path, on_mask: OnMask
    ) -> PromotionDecision:
        on_mask(1, 1)
        assert serving_dir.is_dir()
        assert (candidate_dir / "version.safetensors").is_file()
        return PromotionDecision(self.promote_it, self.reasons, {"first_click_iou": 0.6})

    def publish(self, project_id: int, candidate_dir: Path, manifest: dict[str, Any]) -> str:
        self.on_publish()
        weights = (candidate_dir / "version.safetensors").read_bytes()
        version = f"s14-{hashlib.sha256(f'{project_id} '.encode() + weights).hexdigest()[:8]}"
        folder = self.store / version
        folder.mkdir(exist_ok=True)
        _write(folder / "manifest.json", json.dumps(manifest))
        return version

    def promote(self, project_id: int, version: str) -> None:
        assert (self.store / version / "manifest.json").is_file()
        _write(self.store / f"current-{project_id}", version)

    def runs_to_keep(self, project_id: int) -> frozenset[str]:
        current = self.store / f"current-{project_id}"
        return frozenset({self.manifest(current.read_text())["run"]} if current.exists() else ())

    def manifest(self, version: str) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.store / version / "manifest.json").read_text())
        return manifest

    def computed(self) -> list[tuple[int, int]]:
        """(process, step) of every step that was computed."""
        log = self.store / "steps.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


def make_learner(settings: Settings) -> FakeLearner:
    """As FAKE_LEARNER says, storing beside the database."""
    orders = json.loads(os.environ.get("FAKE_LEARNER", "{}"))
    store = settings.state_dir / "models"
    store.mkdir(parents=True, exist_ok=True)
    return FakeLearner(store, **orders)


def main() -> None:
    """Work as a training worker around `FakeLearner`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--queues", default="training")
    arguments = parser.parse_args()
    set_up_logging()
    url = os.environ["REFCUT_REDIS_URL"]
    sys.exit(run_training_worker(read_settings(), url, arguments.name, make_learner))


if __name__ == "__main__":
    main()
