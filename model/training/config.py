"""What a training run is: read from YAML, checked, and saved beside what it produces."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import DataError
from model.types import ROUND_SLOTS


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSource(_Strict):
    """One annotated set of objects with parts.

    share: how often a step draws from it, relative to the other sources (`sampling: groups` only).
    """

    share: float = Field(1.0, gt=0)


class CocoSource(DataSource):
    """A COCO-style part file with its photographs (docs/data-formats.md)."""

    reader: Literal["coco"] = "coco"
    json_path: Path
    image_dir: Path
    grouping: Literal["object", "photo", "regions"]


class PartImageNetSource(DataSource):
    """A split of PartImageNet: the folder with annotations/ and images/ (docs/data-formats.md)."""

    reader: Literal["part_imagenet"]
    root: Path
    split: str = "train"


class Stage(_Strict):
    """A stretch of training at one size: so many steps, or so many times through the data.

    groups, samples: what a step sees, with `sampling: groups` and `sampling: refcut`.
    """

    size_px: int
    steps: int = Field(0, ge=0)
    epochs: int = Field(0, ge=0)
    groups: int = Field(3, ge=1)
    samples: int = Field(32, ge=1)
    learning_rate_scale: float = 1.0
    loss: Literal["bce_and_dice", "normalised_focal"] = "bce_and_dice"

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if bool(self.steps) == bool(self.epochs):
            raise ValueError("a stage has either steps or epochs")
        return self


class Schedule(_Strict):
    """How the learning rate goes on after the warm-up: half a cosine to 1 %, or times `factor` at each milestone.

    milestones: counted from the beginning of the run, in `unit`; an epoch is as long as in the first stage.
    """

    kind: Literal["cosine", "multistep"] = "cosine"
    milestones: list[int] = []
    unit: Literal["steps", "epochs"] = "steps"
    factor: float = 0.1


class TrainConfig(_Strict):
    """A whole run. Learning rates are per kind of parameter; blocks get rate * decay^(last - l).

    sampling: "groups" trains two views with three targets each, one the reference of the other; "refcut" is the
        paper's: a step is `samples` objects with one target each, every object once an epoch.
    views: "zoomed" crops and squashes as annotators and predictor do; "simpleclick" is SimpleClick's augmentation.
    accumulate: a step's gradient is computed in so many parts, one after another. What a step sees depends on neither
        this nor the number of processes.
    bfloat16: None = where the device computes it natively (GPUs, and processors with AVX-512 BF16 or AMX).
    clip_norm: longest gradient; None = no limit. average_decay: 0 ships the weights of the last step.
    """

    preset: str
    base_weights: Path | None = None
    """Frozen encoder or converted SimpleClick to begin with; None: nothing is known (SimpleClick's shapes only)."""
    parent: Path | None = None
    """Folder of a version to go on from (relative to the configuration's file), or None to begin with fresh parts."""
    sources: list[CocoSource | PartImageNetSource]
    stages: list[Stage]
    likeness: Stage | None = None
    """What the learned likeness sees before the stages, while nothing else learns; None: it learns with the rest only."""
    sampling: Literal["groups", "refcut"] = "groups"
    views: Literal["zoomed", "simpleclick"] = "zoomed"
    no_reference: float = Field(0.0, ge=0, le=1)
    """Share of samples without a reference (`sampling: refcut`)."""
    seed: int = 0
    development_share: float = 0.05
    optimiser: Literal["adamw", "adam"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Schedule = Schedule()
    rate_head: float = 1e-3
    rate_prompts: float = 2e-4
    rate_blocks: float = 1e-4
    block_decay: float = 0.8
    weight_decay: float = 0.02
    warmup_steps: int = 100
    max_click_rounds: int = Field(2, ge=0, lt=ROUND_SLOTS)
    clip_norm: float | None = 1.0
    average_decay: float = 0.995
    accumulate: int = Field(1, ge=1)
    bfloat16: bool | None = None
    checkpoint_minutes: float = 3.0
    loader_workers: int = 1

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.optimiser == "adam" and self.weight_decay:
            raise ValueError("Adam is used without weight decay: set weight_decay to 0, or take adamw")
        counts_epochs = self.schedule.kind == "multistep" and self.schedule.unit == "epochs"
        if self.sampling == "groups" and (counts_epochs or any(stage.epochs for stage in self.stages)):
            raise ValueError("groups are drawn without end: epochs need `sampling: refcut`")
        if self.sampling == "refcut" and any(source.share != 1 for source in self.sources):
            raise ValueError("with `sampling: refcut` every object counts the same: leave share out")
        return self


def read_config(path: Path, data_root: Path) -> TrainConfig:
    """A training run from YAML; relative data paths are below `data_root`. Raises DataError with what is wrong."""
    try:
        config = TrainConfig.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise DataError(
            f"{path} is not a training configuration: {error}", hint="see model/configs/"
        ) from error
    return config.model_copy(
        update={
            "sources": [_below(source, data_root) for source in config.sources],
            "base_weights": None if config.base_weights is None else data_root / config.base_weights,
            "parent": None if config.parent is None else (path.parent / config.parent).resolve(),
        }
    )


def _below(source: CocoSource | PartImageNetSource, root: Path) -> CocoSource | PartImageNetSource:
    paths = {name: root / value for name, value in source if isinstance(value, Path)}
    return source.model_copy(update=paths)
