"""The learner over `model/`: the only place where the backend fine-tunes, compares and publishes models.

Imported only when a training has data, because torch takes seconds and hundreds of megabytes.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from model.checkpoints.version_folder import can_be_averaged
from model.data.snapshot import Snapshot
from model.errors import ModelError
from model.evaluation.compare import CompareSettings, compare
from model.evaluation.pictures import draw_before_after
from model.evaluation.promotion import PromotionRules, decide
from model.finetuning.config import FineTuneSettings, Progress, StopTraining
from model.finetuning.run import fine_tune
from model.finetuning.time_budget import PLAN_FILE
from refcut_backend.inference.load_model import prepare_version
from refcut_backend.settings import Settings
from refcut_backend.training.learner import OnMask, OnProgress, PromotionDecision, Serving
from refcut_backend.training.progress import StopRequestedError
from refcut_backend.versions.serving import ServingChoice, open_model_store

log = logging.getLogger("refcut.training")

BEFORE_AFTER_FILE = "before_after.png"
"""Picture of the holdout before and after the training; published with the candidate."""


class ModelLearner:
    """A `Learner` over `model/` and the model store of the settings."""

    def __init__(self, settings: Settings, fine_tuning: FineTuneSettings | None = None) -> None:
        self._settings = settings
        self._fine_tuning = fine_tuning or FineTuneSettings(time_limit_s=settings.train_learning_s)
        self._store = open_model_store(settings)
        self._choice = ServingChoice(self._store, settings.model_dir)

    def serving(self, project_id: int) -> Serving:
        """The model that serves a project now."""
        chosen = self._choice.of(project_id)
        return Serving(chosen.version, chosen.folder or self._store.local_folder(chosen.version))

    def fine_tune(self, snapshot: Snapshot, parent_dir: Path, run_dir: Path, on_progress: OnProgress) -> Path:
        """Fine-tune a model, as `Learner.fine_tune` says."""

        def pass_on(progress: Progress) -> None:
            try:
                on_progress(progress)
            except StopRequestedError as stop:
                raise StopTraining from stop  # `fine_tune` catches this one and writes a checkpoint first

        try:
            return fine_tune(
                snapshot,
                parent_dir,
                run_dir,
                self._fine_tuning,
                pass_on,
                anchor_dir=self._choice.shared.folder if self._descends_from_shared(parent_dir) else None,
            )
        except StopTraining as stop:
            raise StopRequestedError from stop

    def compare(
        self, snapshot: Snapshot, serving_dir: Path, candidate_dir: Path, on_mask: OnMask
    ) -> PromotionDecision:
        """Compare the models, and draw the holdout before and after the training."""
        how = CompareSettings(
            max_references=self._settings.max_references_per_label,
            runtime=self._settings.runtime,
            runtime_cache_dir=self._settings.runtime_cache_dir,
            limit_s=self._settings.train_comparison_s,
            min_images=self._settings.train_holdout_min_images,
        )
        comparison = compare(snapshot, (serving_dir, candidate_dir), how, on_mask)
        draw_before_after(candidate_dir / BEFORE_AFTER_FILE, comparison, snapshot.image_dir)
        decision = decide(comparison, PromotionRules(min_images=self._settings.train_holdout_min_images))
        return PromotionDecision(decision.promote, tuple(decision.reasons), comparison.to_json())

    def publish(self, project_id: int, candidate_dir: Path, manifest: dict[str, Any]) -> str:
        """Store a candidate with its manifest, to which settings, plan and anchor of the training are added."""
        settings = self._fine_tuning.model_dump(mode="json")
        plan = json.loads((candidate_dir / PLAN_FILE).read_text())
        shared = self._choice.shared.version
        origin = shared if self._descends_from_shared(candidate_dir) else manifest["parent"]
        how = {"origin": origin, "settings": settings, "plan": plan}
        return self._store.publish(project_id, candidate_dir, manifest | how)

    def promote(self, project_id: int, version: str) -> None:
        """Convert a version for this machine's workers, then have it serve."""
        try:
            prepare_version(self._store.local_folder(version), self._settings)
        except ModelError as error:
            log.warning("workers will take longer to switch", extra={"problem": str(error)})
        self._store.promote(project_id, version)

    def _descends_from_shared(self, folder: Path) -> bool:
        """False if the project's versions started from an older shared model with another encoder or shape."""
        shared = self._choice.shared.folder
        return shared is not None and can_be_averaged(shared, folder)

    def runs_to_keep(self, project_id: int) -> frozenset[str]:
        """Ids of the runs of all versions that `refcut models prune` keeps."""
        manifests = [self._store.manifest(version) for version in self._store.lasting(project_id)]
        return frozenset(
            str(manifest.metadata["run"]) for manifest in manifests if "run" in manifest.metadata
        )
