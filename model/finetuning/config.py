"""What a fine-tuning is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from model.training.config import CocoSource
from model.types import ROUND_SLOTS


class FineTuneSettings(BaseModel):
    """time_limit_s: of a run, however often it is resumed. steps: None = `steps_per_image` for each image, between
    `min_steps` and `max_steps`; and no more than fit into the time (`model/finetuning/time_budget.py`).

    reference_share: of project pairs, those whose reference is one of the project's own. session_share: of project
        groups, those that begin with clicks that people made. replay_share: of all groups, those of `replay_snapshots`
        (folders of earlier snapshots) and `replay_sources`.
    origin_share: what ships is the tuned weights, averaged by this share with those of the origin (against forgetting).
    checked_share: of the images, kept aside to stop early; with fewer than `min_checked_images` in all, none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    time_limit_s: float = Field(720.0, gt=0)
    steps: int | None = Field(None, ge=1)
    steps_per_image: int = Field(6, ge=1)
    min_steps: int = Field(120, ge=1)
    max_steps: int = Field(400, ge=1)
    size_px: int = 224
    groups: int = Field(2, ge=1)
    rate_head: float = 1e-3
    rate_prompts: float = 2.5e-4
    rate_blocks: float = 1e-4
    warmup_steps: int = Field(20, ge=1)
    max_click_rounds: int = Field(2, ge=0, lt=ROUND_SLOTS)
    average_decay: float = 0.95
    reference_share: float = Field(0.5, ge=0, le=1)
    session_share: float = Field(0.25, ge=0, le=1)
    replay_share: float = Field(0.3, ge=0, lt=1)
    replay_snapshots: tuple[Path, ...] = ()
    replay_sources: tuple[CocoSource, ...] = ()
    origin_share: float = Field(0.5, ge=0, lt=1)
    checked_share: float = Field(0.1, ge=0, lt=1)
    min_checked_images: int = 100
    checked_masks: int = 24
    checks: int = Field(5, ge=1)
    patience: int = Field(2, ge=1)
    checkpoint_minutes: float = 2.0
    loader_workers: int = 1
    bfloat16: bool | None = None


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
