"""The one place where the backend calls what learns, judges and stores models. Imported when a training begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from model.data.snapshot import Snapshot
from refcut_backend.settings import Settings
from refcut_backend.training.run_report import ToldToStopError

OnProgress = Callable[[Any], None]
"""Is given `model.finetune.Progress`: stage, step, steps, eta_s, metrics. May raise to end the training."""

OnMask = Callable[[int, int], None]
"""(masks judged, masks in all). May raise to end the judging."""


@dataclass(frozen=True)
class Serving:
    """The model that a project's clicks are answered with: what a training begins from and has to beat."""

    version: str
    folder: Path


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate is better, why, and the figures that say so."""

    promote: bool
    reasons: tuple[str, ...]
    figures: dict[str, Any] = field(default_factory=dict)


class Learner(Protocol):
    """What a training needs of `model/` and of the model store. Everything may raise RefCutError or ModelError."""

    def serving(self, project_id: int) -> Serving: ...

    def fine_tune(self, snapshot: Snapshot, parent_dir: Path, run_dir: Path, on_progress: OnProgress) -> Path:
        """The candidate's folder. Goes on from its last checkpoint when run_dir has one."""
        ...

    def judge(
        self, snapshot: Snapshot, serving_dir: Path, candidate_dir: Path, on_mask: OnMask
    ) -> Verdict: ...

    def publish(self, project_id: int, candidate_dir: Path, manifest: dict[str, Any]) -> str:
        """Stores the candidate, whole or not at all; returns its version."""
        ...

    def promote(self, project_id: int, version: str) -> None:
        """From now on clicks are answered with that version."""
        ...


class ModelLearner:
    """A Learner over `model/` and the settings' model store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = import_module("refcut_backend.model_store.from_settings").open_model_store(settings)
        choosing = import_module("refcut_backend.model_store.serving_choice")
        self._choice = choosing.ServingChoice(self._store, settings.model_dir)

    def serving(self, project_id: int) -> Serving:
        chosen = self._choice.of(project_id)
        return Serving(chosen.version, chosen.folder or self._store.local_folder(chosen.version))

    def fine_tune(self, snapshot: Snapshot, parent_dir: Path, run_dir: Path, on_progress: OnProgress) -> Path:
        finetune = import_module("model.finetune")

        def pass_on(said: Any) -> None:
            try:
                on_progress(said)
            except ToldToStopError as stop:
                raise finetune.StopTraining from stop  # what it knows: it writes a checkpoint first

        try:
            settings = finetune.FineTuneSettings()
            folder: Path = finetune.fine_tune(snapshot, parent_dir, run_dir, settings, pass_on)
        except finetune.StopTraining as stop:
            raise ToldToStopError from stop
        return folder

    def judge(self, snapshot: Snapshot, serving_dir: Path, candidate_dir: Path, on_mask: OnMask) -> Verdict:
        judging, gate = import_module("model.judge"), import_module("model.gate")
        how = judging.JudgeSettings(
            max_references=self._settings.max_references_per_label,
            runtime=self._settings.runtime,
            runtime_cache_dir=self._settings.runtime_cache_dir,
        )
        judgement = judging.judge(snapshot, (serving_dir, candidate_dir), how, on_mask)
        rules = gate.GateRules(min_images=self._settings.train_holdout_min_images)
        decision = gate.decide(judgement, rules)
        return Verdict(decision.promote, tuple(decision.reasons), judgement.to_json())

    def publish(self, project_id: int, candidate_dir: Path, manifest: dict[str, Any]) -> str:
        settings = import_module("model.finetune").FineTuneSettings().model_dump(mode="json")
        return str(self._store.publish(project_id, candidate_dir, manifest | {"settings": settings}))

    def promote(self, project_id: int, version: str) -> None:
        self._store.promote(project_id, version)
