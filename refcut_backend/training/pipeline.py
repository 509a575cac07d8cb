"""One training from its snapshot to its outcome."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.data.snapshot import Snapshot
from refcut_backend import __version__
from refcut_backend.errors import RefCutError
from refcut_backend.training.collect import images_of
from refcut_backend.training.learner import Learner, PromotionDecision, Serving
from refcut_backend.training.new_annotations import NewAnnotations
from refcut_backend.training.progress import RunReport
from refcut_backend.training.runs import Outcome, Stage
from refcut_backend.training.snapshot import (
    SNAPSHOT_DIR,
    SnapshotMaker,
    annotations_of,
    made_of,
    remove_old_runs,
)

log = logging.getLogger("refcut.training")

WORK_DIR = "work"
"""What fine-tuning keeps for itself: checkpoints. Dropped when the project's next training begins."""
KEPT_RUNS = 10
FEWEST_SCENES = 2
"""A pair needs a target and a reference."""


@dataclass(frozen=True)
class Ended:
    """How a training ended. version: of the model that it made, if it came to that."""

    outcome: Outcome
    message: str
    version: str | None


class ProjectTraining:
    """Trains projects. What it does twice, after a kill, it does to the same end."""

    def __init__(
        self,
        folder: Path,
        snapshots: SnapshotMaker,
        new_annotations: NewAnnotations,
        keep_runs: int = KEPT_RUNS,
    ) -> None:
        """folder: below it, one a project, and in that one a run. keep_runs: newest ones whose folders stay."""
        self._folder = folder
        self._keep_runs = keep_runs
        self._snapshots = snapshots
        self._new_annotations = new_annotations

    def folder_of(self, project_id: int, run_id: str) -> Path:
        return self._folder / str(project_id) / run_id

    def train(
        self, project_id: int, run_id: str, make_learner: Callable[[], Learner], report: RunReport
    ) -> Ended:
        """Raises RefCutError, ModelError, OSError, and what the report raises.

        make_learner: called once there is something to learn from; loading what learns takes seconds.
        """
        folder = self.folder_of(project_id, run_id)
        self._drop_work_of_others(folder)
        report(Stage.SNAPSHOT)
        snapshot = self._snapshots.make(
            project_id,
            folder / SNAPSHOT_DIR,
            lambda number, all: report(Stage.SNAPSHOT, number, all),
        )
        report.left_out(made_of(snapshot)["left_out"])
        if len(snapshot.train) < FEWEST_SCENES:
            return self._ended(project_id, snapshot, Outcome.NOT_PROMOTED, _too_little(snapshot), None)
        report(Stage.TRAINING)
        learner = make_learner()
        serving = learner.serving(project_id)
        candidate = learner.fine_tune(
            snapshot,
            serving.folder,
            folder / WORK_DIR,
            lambda said: report(Stage.TRAINING, said.step, said.steps, said.eta_s, said.metrics),
        )
        report(Stage.COMPARING)
        verdict = self._compare(
            snapshot,
            lambda: learner.compare(
                snapshot, serving.folder, candidate, lambda done, of: report(Stage.COMPARING, done, of)
            ),
        )
        report.check()
        manifest = self._manifest(run_id, snapshot, serving, verdict)
        version = learner.publish(project_id, candidate, manifest)
        report.check()
        if verdict.promote:
            learner.promote(project_id, version)
        self._remove_old_runs(project_id, run_id, learner)
        outcome = Outcome.PROMOTED if verdict.promote else Outcome.NOT_PROMOTED
        return self._ended(project_id, snapshot, outcome, "; ".join(verdict.reasons), version)

    def _compare(self, snapshot: Snapshot, compare: Callable[[], PromotionDecision]) -> PromotionDecision:
        """Nothing is promoted on the word of too few images."""
        held_out, wanted = len(images_of(snapshot.holdout)), self._snapshots.rules.at_least
        verdict = compare() if held_out else PromotionDecision(False, ())
        if held_out >= wanted or (verdict.reasons and not verdict.promote):
            return verdict
        few = f"{held_out} images are held out and {wanted} are needed for a judgement"
        return PromotionDecision(False, (few, *verdict.reasons), verdict.figures)

    def _manifest(
        self, run_id: str, snapshot: Snapshot, serving: Serving, verdict: PromotionDecision
    ) -> dict[str, Any]:
        said = made_of(snapshot)
        return {
            "run": run_id,
            "project": said["project"],
            "parent": serving.version,
            "snapshot": snapshot.digest,
            "code_version": __version__,
            "labels": snapshot.labels,
            "annotations": len(said["annotations"]),
            "images": {
                "train": len(images_of(snapshot.train)),
                "holdout": len(images_of(snapshot.holdout)),
            },
            "left_out": said["left_out"],
            "references": [{"label": r.label, "version": r.version} for r in snapshot.references],
            "decision": {"promote": verdict.promote, "reasons": list(verdict.reasons)},
            "judgement": verdict.figures,
        }

    def _ended(
        self, project_id: int, snapshot: Snapshot, outcome: Outcome, message: str, version: str | None
    ) -> Ended:
        self._new_annotations.taken(project_id, annotations_of(snapshot), time.time())
        return Ended(outcome, message, version)

    def _remove_old_runs(self, project_id: int, run_id: str, learner: Learner) -> None:
        """A training that is done has not failed when this does."""
        try:
            needed = learner.runs_to_keep(project_id) | {run_id}
            remove_old_runs(self._folder / str(project_id), self._keep_runs, needed)
        except (OSError, RefCutError) as error:
            log.warning("old trainings are still there", extra={"problem": str(error)})

    def _drop_work_of_others(self, folder: Path) -> None:
        """One training of a project at a time: whatever others have left is of ended ones."""
        folder.mkdir(parents=True, exist_ok=True)
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other / WORK_DIR, ignore_errors=True)


def _too_little(snapshot: Snapshot) -> str:
    return (
        f"there is too little to learn from: {len(snapshot.train)} annotations with masks to train on, "
        f"{len(images_of(snapshot.holdout))} images held out"
    )
