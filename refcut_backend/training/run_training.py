"""The one place where the backend calls what learns, judges and stores models. Imported when a training begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from model.data.snapshot import Snapshot
from refcut_backend.settings import Settings

OnProgress = Callable[[Any], None]
"""Is given `model.finetune.Progress`: stage, step, steps, eta_s, metrics. May raise to end the training."""


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

    def judge(self, snapshot: Snapshot, serving_dir: Path, candidate_dir: Path) -> Verdict: ...

    def publish(self, project_id: int, candidate_dir: Path, manifest: dict[str, Any]) -> str:
        """Stores the candidate, whole or not at all; returns its version."""
        ...

    def promote(self, project_id: int, version: str) -> None:
        """From now on clicks are answered with that version."""
        ...


class ModelLearner:
    """A Learner over `model/` and the settings' model store."""

    def __init__(self, settings: Settings) -> None:
        self._store = import_module("refcut_backend.model_store.from_settings").open_model_store(settings)
        choosing = import_module("refcut_backend.model_store.serving_choice")
        self._choice = choosing.ServingChoice(self._store, settings.model_dir)

    def serving(self, project_id: int) -> Serving:
        chosen = self._choice.of(project_id)
        return Serving(chosen.version, chosen.folder or self._store.local_folder(chosen.version))

    def fine_tune(self, snapshot: Snapshot, parent_dir: Path, run_dir: Path, on_progress: OnProgress) -> Path:
        finetune = import_module("model.finetune")
        folder: Path = finetune.fine_tune(
            snapshot, parent_dir, run_dir, finetune.FineTuneSettings(), on_progress
        )
        return folder

    def judge(self, snapshot: Snapshot, serving_dir: Path, candidate_dir: Path) -> Verdict:
        judging, gate = import_module("model.judge"), import_module("model.gate")
        judgement = judging.judge(snapshot, serving_dir, candidate_dir, judging.JudgeSettings())
        decision = gate.decide(judgement, gate.GateRules())
        figures = asdict(judgement) if is_dataclass(judgement) and not isinstance(judgement, type) else {}
        return Verdict(decision.promote, tuple(decision.reasons), figures)

    def publish(self, project_id: int, candidate_dir: Path, manifest: dict[str, Any]) -> str:
        return str(self._store.publish(project_id, candidate_dir, manifest))

    def promote(self, project_id: int, version: str) -> None:
        self._store.promote(project_id, version)
