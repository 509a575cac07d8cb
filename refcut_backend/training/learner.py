"""What a training needs of what learns, judges and stores models; `model_learner.py` is it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from model.data.snapshot import Snapshot
from model.finetuning.config import Progress

OnProgress = Callable[[Progress], None]
"""May raise to end the training."""

OnMask = Callable[[int, int], None]
"""(masks judged, masks in all). May raise to end the judging."""


@dataclass(frozen=True)
class Serving:
    """The model that a project's clicks are answered with: what a training begins from and has to beat."""

    version: str
    folder: Path


@dataclass(frozen=True)
class PromotionDecision:
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

    def compare(
        self, snapshot: Snapshot, serving_dir: Path, candidate_dir: Path, on_mask: OnMask
    ) -> PromotionDecision: ...

    def publish(self, project_id: int, candidate_dir: Path, manifest: dict[str, Any]) -> str:
        """Stores the candidate, whole or not at all; returns its version."""
        ...

    def promote(self, project_id: int, version: str) -> None:
        """From now on clicks are answered with that version."""
        ...

    def runs_to_keep(self, project_id: int) -> frozenset[str]:
        """Runs whose snapshots are needed to repeat the versions that matter: those that `models prune` leaves."""
        ...
