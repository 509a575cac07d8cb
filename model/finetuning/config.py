"""Settings of a fine-tuning, and the progress that it reports. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from model.training.config import CocoSource
from model.types import ROUND_SLOTS


class FineTuneSettings(BaseModel):
    """How a version learns from a project's annotations.

    Attributes:
        seed: Seed of everything random.
        time_limit_s: Longest time of a run in seconds, all of its interrupted parts included.
        steps: Number of steps. None takes `steps_per_image` steps per image, but at least `min_steps` and at most
            `max_steps`. Either is shortened to what fits into the time (`model.finetuning.time_budget`).
        steps_per_image: See `steps`.
        min_steps: See `steps`.
        max_steps: See `steps`.
        size_px: Side of the square crops. By default the size at which `s14` answers clicks.
        groups: Groups of targets per step.
        rate_head: Learning rate of the decoder.
        rate_prompts: Learning rate of the prompt layers and the learned similarity.
        rate_blocks: Learning rate of the last transformer block.
        rate_reader: Learning rate of the reader; 0 leaves it as it is.
        warmup_steps: Steps over which the learning rate rises linearly.
        max_click_rounds: Most simulated clicks after the first ones.
        average_decay: Decay of the weight average.
        reference_share: Of the pairs of project images, the share whose reference is one of the project's references.
        session_share: Of the groups of project images, the share that begins with clicks that annotators made.
        replay_share: Of all groups, the share drawn from `replay_snapshots` and `replay_sources`, against forgetting.
        replay_snapshots: Folders of earlier snapshots.
        replay_sources: Other data sets.
        anchor_share: The weights that ship are the trained ones averaged with those of the anchor; this is the anchor's
            share (as in WiSE-FT). May also be given as `origin_share`, its old name.
        checked_share: Share of the training images that is held out for early stopping.
        min_checked_images: With fewer training images than this, none are held out.
        checked_masks: Most masks that an early-stopping check annotates.
        checks: Number of early-stopping checks in a run.
        patience: The run ends after this many checks in a row without a better score.
        checkpoint_minutes: Minutes between checkpoints.
        loader_workers: Processes that prepare batches; 0 prepares them in the training process.
        bfloat16: Whether to compute in bfloat16. None uses it where the device has instructions for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    time_limit_s: float = Field(2700.0, gt=0)
    steps: int | None = Field(None, ge=1)
    steps_per_image: int = Field(6, ge=1)
    min_steps: int = Field(120, ge=1)
    max_steps: int = Field(400, ge=1)
    size_px: int = 336
    groups: int = Field(2, ge=1)
    rate_head: float = 1e-3
    rate_prompts: float = 2.5e-4
    rate_blocks: float = 1e-4
    rate_reader: float = Field(3e-4, ge=0)
    warmup_steps: int = Field(20, ge=1)
    max_click_rounds: int = Field(3, ge=0, lt=ROUND_SLOTS)
    average_decay: float = 0.95
    reference_share: float = Field(0.5, ge=0, le=1)
    session_share: float = Field(0.25, ge=0, le=1)
    replay_share: float = Field(0.3, ge=0, lt=1)
    replay_snapshots: tuple[Path, ...] = ()
    replay_sources: tuple[CocoSource, ...] = ()
    anchor_share: float = Field(
        0.5, ge=0, lt=1, validation_alias=AliasChoices("anchor_share", "origin_share")
    )
    checked_share: float = Field(0.1, ge=0, lt=1)
    min_checked_images: int = 100
    checked_masks: int = 24
    checks: int = Field(5, ge=1)
    patience: int = Field(2, ge=1)
    checkpoint_minutes: float = 2.0
    loader_workers: int = 1
    bfloat16: bool | None = None


class StopTraining(Exception):  # noqa: N818
    """Raised by `on_progress` to end a run: it saves a checkpoint first, so that it can be resumed later."""


@dataclass(frozen=True)
class Progress:
    """How far a fine-tuning is.

    Attributes:
        stage: "preparing", "training", "checking" or "done".
        step: Steps taken so far.
        steps: Steps of the whole run as currently planned; 0 before the first step.
        eta_s: Estimated seconds to the last step; None while it cannot be estimated.
        metrics: Latest values of "loss", "iou" (both in training) and "checked_iou" (of the last check).
    """

    stage: str
    step: int = 0
    steps: int = 0
    eta_s: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
