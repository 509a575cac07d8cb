"""What a fine-tuning says of itself while it runs, and how it is told to stop. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class StopTraining(Exception):  # noqa: N818
    """To be raised in `on_progress`: ends a run after its checkpoint, to be resumed later."""


@dataclass(frozen=True)
class Progress:
    """stage: "preparing", "training", "checking" or "done". metrics: the latest: loss, iou, checked_iou."""

    stage: str
    step: int = 0
    steps: int = 0
    eta_s: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
