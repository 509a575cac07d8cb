"""The interface between the steps of a training and the library that trains: see `refcut_learner.py`.

Nothing here imports torch, so the steps can be tested with a fake learner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from model.data.snapshot import Snapshot
from model.finetuning.config import Progress

OnProgress = Callable[[Progress], None]
"""Called with the progress of the optimisation. May raise to end the training."""

OnMask = Callable[[int, int], None]
"""Called with (number of masks compared, number of all masks). May raise to end the comparison."""


@dataclass(frozen=True)
class Serving:
    """The model that answers the project's clicks: the training starts from it and has to be better.

    Attributes:
        version: Its version as Label Studio shows it.
        folder: Folder with its weights.
    """

    version: str
    folder: Path


@dataclass(frozen=True)
class PromotionDecision:
    """Result of the comparison of a candidate with the serving model on the holdout.

    Attributes:
        promote: Whether the candidate shall serve.
        reasons: Why or why not, one sentence each.
        figures: Figures of both models, for the manifest.
    """

    promote: bool
    reasons: tuple[str, ...]
    figures: dict[str, Any] = field(default_factory=dict)


class Learner(Protocol):
    """Trains, compares and stores models. Every method may raise RefCutError or ModelError."""

    def serving(self, project_id: int) -> Serving:
        """The model that serves a project now."""
        ...

    def fine_tune(self, snapshot: Snapshot, parent_dir: Path, run_dir: Path, on_progress: OnProgress) -> Path:
        """Fine-tune a model on a snapshot.

        Args:
            snapshot: The data.
            parent_dir: Folder of the model to start from.
            run_dir: Folder for checkpoints; a training resumes from the last one in it.
            on_progress: Called at every step.

        Returns:
            The candidate's folder.
        """
        ...

    def compare(
        self, snapshot: Snapshot, serving_dir: Path, candidate_dir: Path, on_mask: OnMask
    ) -> PromotionDecision:
        """Compare a candidate with the serving model on the holdout of a snapshot.

        Args:
            snapshot: Its holdout is annotated by a robot with both models.
            serving_dir: Folder of the serving model.
            candidate_dir: Folder of the candidate; may get pictures.
            on_mask: Called at every mask.
        """
        ...

    def publish(self, project_id: int, candidate_dir: Path, manifest: dict[str, Any]) -> str:
        """Store a candidate, completely or not at all.

        Args:
            project_id: The project.
            candidate_dir: Folder with the candidate's weights and pictures.
            manifest: What the version was made of, as JSON.

        Returns:
            The name of the version.
        """
        ...

    def promote(self, project_id: int, version: str) -> None:
        """Have a version answer the project's clicks from now on."""
        ...

    def runs_to_keep(self, project_id: int) -> frozenset[str]:
        """Ids of the runs whose snapshots reproduce the versions that `refcut models prune` keeps."""
        ...
