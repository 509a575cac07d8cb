"""The steps of one training, in order.

snapshot    collect the project's data                            snapshot.py
training    fine-tune the serving model on it                     Learner.fine_tune
comparing   compare candidate and serving model on the holdout    Learner.compare
publish     store the candidate with its manifest                 Learner.publish
promote     have it serve, if it is better                        Learner.promote
"""

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
"""Folder of checkpoints in the folder of a run; removed when the project's next training begins."""
KEPT_RUNS = 10
FEWEST_OBJECTS = 2
"""Smallest number of annotated objects: a training pair needs a target and a reference."""


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training.

    Attributes:
        outcome: How it ended.
        message: Why, for the status.
        version: The candidate's version; None if none was published.
    """

    outcome: Outcome
    message: str
    version: str | None


class ProjectTraining:
    """Trains projects, one run at a time."""

    def __init__(
        self,
        folder: Path,
        snapshots: SnapshotMaker,
        new_annotations: NewAnnotations,
        keep_runs: int = KEPT_RUNS,
    ) -> None:
        """Prepare trainings.

        Args:
            folder: Gets one folder per project with one folder per run.
            snapshots: Makes the snapshots.
            new_annotations: Is told which annotations a training has seen.
            keep_runs: Number of newest runs per project whose folders are kept.
        """
        self._folder = folder
        self._keep_runs = keep_runs
        self._snapshots = snapshots
        self._new_annotations = new_annotations

    def folder_of(self, project_id: int, run_id: str) -> Path:
        """Folder of a run."""
        return self._folder / str(project_id) / run_id

    def train(
        self, project_id: int, run_id: str, make_learner: Callable[[], Learner], report: RunReport
    ) -> TrainingResult:
        """Train a project.

        Args:
            project_id: The project.
            run_id: The run; its folder may hold the state of an earlier attempt.
            make_learner: Called when the snapshot has enough data; it imports torch, which takes seconds.
            report: Gets the progress. What it raises ends the training and is passed on.

        Returns:
            How the training ended; too little data or a worse candidate is a result, not an error.

        Raises:
            RefCutError: If Label Studio, the model store or the database fails.
            ModelError: If the library fails.
            OSError: If the disk is full.
        """
        folder = self.folder_of(project_id, run_id)
        self._drop_work_of_others(folder)
        report(Stage.SNAPSHOT)
        snapshot = self._snapshots.make(
            project_id,
            folder / SNAPSHOT_DIR,
            lambda done, total: report(Stage.SNAPSHOT, done, total),
        )
        report.left_out(made_of(snapshot)["left_out"])
        if len(snapshot.train) < FEWEST_OBJECTS:
            return self._ended(project_id, snapshot, Outcome.NOT_PROMOTED, _too_little(snapshot), None)
        report(Stage.TRAINING)
        learner = make_learner()
        serving = learner.serving(project_id)
        candidate = learner.fine_tune(
            snapshot,
            serving.folder,
            folder / WORK_DIR,
            lambda now: report(Stage.TRAINING, now.step, now.steps, now.eta_s, now.metrics),
        )
        report(Stage.COMPARING)
        decision = self._compare(
            snapshot,
            lambda: learner.compare(
                snapshot, serving.folder, candidate, lambda done, total: report(Stage.COMPARING, done, total)
            ),
        )
        report.check()
        manifest = self._manifest(run_id, snapshot, serving, decision)
        version = learner.publish(project_id, candidate, manifest)
        report.check()
        if decision.promote:
            learner.promote(project_id, version)
        self._remove_old_runs(project_id, run_id, learner)
        outcome = Outcome.PROMOTED if decision.promote else Outcome.NOT_PROMOTED
        return self._ended(project_id, snapshot, outcome, "; ".join(decision.reasons), version)

    def _compare(self, snapshot: Snapshot, compare: Callable[[], PromotionDecision]) -> PromotionDecision:
        """Compares the models; a holdout with too few images never leads to a promotion."""
        held_out, wanted = len(images_of(snapshot.holdout)), self._snapshots.rules.at_least
        decision = compare() if held_out else PromotionDecision(False, ())
        if held_out >= wanted or (decision.reasons and not decision.promote):
            return decision
        few = f"{held_out} images are held out and {wanted} are needed for a comparison"
        return PromotionDecision(False, (few, *decision.reasons), decision.figures)

    def _manifest(
        self, run_id: str, snapshot: Snapshot, serving: Serving, decision: PromotionDecision
    ) -> dict[str, Any]:
        metadata = made_of(snapshot)
        return {
            "run": run_id,
            "project": metadata["project"],
            "parent": serving.version,
            "snapshot": snapshot.digest,
            "code_version": __version__,
            "labels": snapshot.labels,
            "annotations": len(metadata["annotations"]),
            "images": {
                "train": len(images_of(snapshot.train)),
                "holdout": len(images_of(snapshot.holdout)),
            },
            "left_out": metadata["left_out"],
            "references": [{"label": r.label, "version": r.version} for r in snapshot.references],
            "decision": {"promote": decision.promote, "reasons": list(decision.reasons)},
            "judgement": decision.figures,
        }

    def _ended(
        self, project_id: int, snapshot: Snapshot, outcome: Outcome, message: str, version: str | None
    ) -> TrainingResult:
        self._new_annotations.taken(project_id, annotations_of(snapshot), time.time())
        return TrainingResult(outcome, message, version)

    def _remove_old_runs(self, project_id: int, run_id: str, learner: Learner) -> None:
        """A failure here does not fail the training."""
        try:
            needed = learner.runs_to_keep(project_id) | {run_id}
            remove_old_runs(self._folder / str(project_id), self._keep_runs, needed)
        except (OSError, RefCutError) as error:
            log.warning("old trainings cannot be removed", extra={"problem": str(error)})

    def _drop_work_of_others(self, folder: Path) -> None:
        """Removes the checkpoints of other runs. Only one training of a project runs at a time, so those have ended."""
        folder.mkdir(parents=True, exist_ok=True)
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other / WORK_DIR, ignore_errors=True)


def _too_little(snapshot: Snapshot) -> str:
    return (
        f"there is too little training data: {len(snapshot.train)} annotations with masks to train on, "
        f"{len(images_of(snapshot.holdout))} images held out"
    )
