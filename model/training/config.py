"""What a training run is: read from YAML, checked, and saved beside what it produces."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from model.errors import DataError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSource(_Strict):
    """One annotated set. share: how often a step draws from it, relative to the other sources."""

    json_path: Path
    image_dir: Path
    grouping: Literal["object", "photo", "regions"]
    share: float


class Stage(_Strict):
    """A stretch of training at one size."""

    size_px: int
    steps: int
    groups: int = 3
    learning_rate_scale: float = 1.0
    loss: Literal["bce_and_dice", "normalised_focal"] = "bce_and_dice"


class TrainConfig(_Strict):
    """A whole run. Learning rates are for AdamW, per kind of parameter; blocks get rate * decay^(last - l)."""

    preset: str
    base_weights: Path
    parent: Path | None = None
    """Folder of a version to go on from (relative to the configuration's file), or None to begin with fresh parts."""
    sources: list[DataSource]
    stages: list[Stage]
    seed: int = 0
    development_share: float = 0.05
    rate_head: float = 1e-3
    rate_prompts: float = 2e-4
    rate_blocks: float = 1e-4
    block_decay: float = 0.8
    weight_decay: float = 0.02
    warmup_steps: int = 100
    max_click_rounds: int = 2
    clip_norm: float = 1.0
    average_decay: float = 0.995
    checkpoint_minutes: float = 3.0
    loader_workers: int = 1


def read_config(path: Path, data_root: Path) -> TrainConfig:
    """A training run from YAML; relative data paths are below `data_root`. Raises DataError with what is wrong."""
    try:
        config = TrainConfig.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise DataError(
            f"{path} is not a training configuration: {error}", hint="see model/configs/"
        ) from error
    sources = [
        s.model_copy(update={"json_path": data_root / s.json_path, "image_dir": data_root / s.image_dir})
        for s in config.sources
    ]
    parent = None if config.parent is None else (path.parent / config.parent).resolve()
    return config.model_copy(
        update={"sources": sources, "base_weights": data_root / config.base_weights, "parent": parent}
    )
