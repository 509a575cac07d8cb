"""The configuration of a training run (`python -m model train CONFIG`): read from YAML and validated.

Open this file to see or change what a configuration may contain. Shipped examples are in `model/configs/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from model.data.target_sampling import TargetKind
from model.errors import DataError
from model.types import ROUND_SLOTS


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSource(_Strict):
    """One annotated set of objects with parts.

    Attributes:
        share: How often a step draws from this source, relative to the other sources (`sampling: groups` only).
    """

    share: float = Field(1.0, gt=0)


class CocoSource(DataSource):
    """A COCO-style part file with its images (docs/data-formats.md).

    Attributes:
        json_path: The part file.
        image_dir: Folder of its images.
        grouping: What one object is; see `model.data.annotated_objects.read_annotated_objects`.
        targets: What can be asked for; see `model.data.target_sampling` (`sampling: groups` only). None asks for
            regions of `grouping: regions`, for parts and wholes of `grouping: object`, and for parts otherwise.
        all_labelled: Whether every part of an object is labelled, so that its union is the whole. False asks for
            parts only, as `targets: parts` does.
        cutouts: Whether its objects are complete enough to be cut out and pasted beside others (see `pasted`).
    """

    reader: Literal["coco"] = "coco"
    json_path: Path
    image_dir: Path
    grouping: Literal["object", "photo", "regions"]
    targets: TargetKind | None = None
    all_labelled: bool = True
    cutouts: bool = False

    @model_validator(mode="after")
    def _targets_fit_the_grouping(self) -> Self:
        if self.targets == "object" and (self.grouping != "object" or not self.all_labelled):
            raise ValueError("targets: object needs grouping: object, and every part labelled")
        if self.targets is not None and (self.targets == "regions") != (self.grouping == "regions"):
            raise ValueError("regions have no names: grouping and targets are both regions, or neither is")
        if self.cutouts and self.targets not in ("object", "instances", "all_instances"):
            raise ValueError("cutouts needs targets: object, instances or all_instances")
        return self


class PartImageNetSource(DataSource):
    """A split of PartImageNet (docs/data-formats.md).

    Attributes:
        root: Folder with `annotations/` and `images/`.
        split: Name of the folder of the split in both.
    """

    reader: Literal["part_imagenet"]
    root: Path
    split: str = "train"


class Stage(_Strict):
    """A stretch of training at one crop size, with a length in steps or in epochs.

    Attributes:
        size_px: Side of the square crops.
        steps: Length in optimiser steps. Exactly one of `steps` and `epochs` is set.
        epochs: Length in passes through the data (`sampling: refcut` only).
        groups: Groups of two crops per step (`sampling: groups`).
        samples: Samples per step (`sampling: refcut`).
        learning_rate_scale: Factor on all learning rates.
        loss: Name of a loss in `model.training.losses.LOSSES`.
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
    """The learning rate after the warm-up: half a cosine down to 1 %, or a factor at each milestone.

    Attributes:
        kind: "cosine" or "multistep".
        milestones: Where the rate drops, counted from the start of the run in `unit` (`multistep` only).
        unit: "steps" or "epochs"; an epoch is as long as in the first stage.
        factor: The rate is multiplied by this at each milestone.
    """

    kind: Literal["cosine", "multistep"] = "cosine"
    milestones: list[int] = []
    unit: Literal["steps", "epochs"] = "steps"
    factor: float = 0.1


class TrainConfig(_Strict):
    """A whole training run.

    Attributes:
        preset: Name of the network's configuration in `model.network.config.PRESETS`.
        base_weights: File to begin with: a frozen encoder, or a converted SimpleClick. None begins with random weights
            (SimpleClick's shapes only).
        parent: Folder of a version whose training is continued, relative to the configuration's file. None begins with
            fresh parts.
        reader: File `reader.safetensors` of a training of the reader, relative to the data. The reader joins the
            parent in place of its learned similarity. None leaves the parent as it is.
        sources: Data sets to train on.
        exclude: List of near copies to leave out, as `near-copies` writes it, relative to the data. The sets in it are
            called like the folders of the sources' `json_path`.
        stages: The run, in order.
        similarity_stage: Trains the learned similarity alone before `stages`. None trains it with the rest only. YAML
            may also call it `likeness`, its old name.
        sampling: "groups" trains two crops with three targets each, one the reference of the other; "refcut" is the
            paper's: a step is `samples` objects with one target each, and an epoch has every object once.
        augmentation: "zoomed" crops and squashes as annotators and predictor do; "simpleclick" is SimpleClick's
            augmentation. YAML may also call it `views`, its old name.
        no_reference: Share of samples without a reference, 0 to 1. None takes the default of the sampling: with
            "refcut" every sample that can have one has one. With 1 a network learns clicks alone, as SimpleClick does.
        pasted: Share of the groups of whole objects in which an object of a source with `cutouts` is pasted onto both
            photographs, so that two things touch (`sampling: groups`), 0 to 1. Three times as often where one of the
            photographs shows a single labelled thing.
        zoom_both: Of the groups with a crop that is zoomed in on a part, how many have both crops zoomed in on it, as a
            crop is compared with a close-up of a reference (`sampling: groups`), 0 to 1.
        name_weights: How often a part is asked for by its name, relative to the other parts of a crop; 1 if left out
            (`sampling: groups`).
        seed: Seed of everything random. Runs with the same seed and configuration take the same steps.
        development_share: Share of the images that is left out, to choose settings on.
        optimiser: "adamw", or "adam" without weight decay.
        betas: Adam's exponential decay rates.
        schedule: The learning rate after the warm-up.
        rate_head: Learning rate of the decoder and all parts not named below.
        rate_prompts: Learning rate of the prompt layers and the learned similarity.
        rate_blocks: Learning rate of the last transformer block.
        rate_reader: Learning rate of the reader; 0 leaves it as it is.
        judge_only: Only the layers that estimate the IoU of candidate masks are trained, for a network whose masks are
            finished; a step takes half as long.
        block_decay: Each earlier block learns slower by this factor.
        weight_decay: AdamW's weight decay.
        warmup_steps: Steps over which the learning rate rises linearly from zero.
        max_click_rounds: Most simulated clicks after the first ones; each step draws a number up to this.
        pointed_share: Weight of the loss within the piece that the last simulated click points at; 0 leaves it out.
        clip_norm: Longest gradient (L2 norm over all parameters). None does not clip.
        average_decay: Decay of the weight average that is shipped; 0 ships the weights of the last step.
        accumulate: Number of batches that a step's gradient is computed in. The targets of a step depend neither on
            this nor on the number of processes.
        bfloat16: Whether to compute in bfloat16. None uses it where the device has instructions for it (GPUs, and
            processors with AVX-512 BF16 or AMX).
        checkpoint_minutes: Minutes between checkpoints.
        loader_workers: Processes that prepare batches; 0 prepares them in the training process.
    """

    preset: str
    base_weights: Path | None = None
    parent: Path | None = None
    reader: Path | None = None
    sources: list[CocoSource | PartImageNetSource]
    stages: list[Stage]
    exclude: Path | None = None
    similarity_stage: Stage | None = Field(
        None, validation_alias=AliasChoices("similarity_stage", "likeness")
    )
    sampling: Literal["groups", "refcut"] = "groups"
    augmentation: Literal["zoomed", "simpleclick"] = Field(
        "zoomed", validation_alias=AliasChoices("augmentation", "views")
    )
    no_reference: float | None = Field(None, ge=0, le=1)
    pasted: float = Field(0.0, ge=0, le=1)
    zoom_both: float = Field(0.0, ge=0, le=1)
    name_weights: dict[str, PositiveFloat] = {}
    seed: int = 0
    development_share: float = 0.05
    optimiser: Literal["adamw", "adam"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Schedule = Schedule()
    rate_head: float = 1e-3
    rate_prompts: float = 2e-4
    rate_blocks: float = 1e-4
    rate_reader: float = Field(0.0, ge=0)
    judge_only: bool = False
    block_decay: float = 0.8
    weight_decay: float = 0.02
    warmup_steps: int = 100
    max_click_rounds: int = Field(2, ge=0, lt=ROUND_SLOTS)
    pointed_share: float = Field(0.0, ge=0)
    clip_norm: float | None = 1.0
    average_decay: float = 0.995
    accumulate: int = Field(1, ge=1)
    bfloat16: bool | None = None
    checkpoint_minutes: float = 3.0
    loader_workers: int = 1

    @model_validator(mode="after")
    def _options_fit_together(self) -> Self:
        if self.optimiser == "adam" and self.weight_decay:
            raise ValueError("Adam is used without weight decay: set weight_decay to 0, or take adamw")
        counts_epochs = self.schedule.kind == "multistep" and self.schedule.unit == "epochs"
        if self.sampling == "groups" and (counts_epochs or any(stage.epochs for stage in self.stages)):
            raise ValueError("groups are drawn without end: epochs need `sampling: refcut`")
        if self.sampling == "refcut" and any(source.share != 1 for source in self.sources):
            raise ValueError("with `sampling: refcut` every object counts the same: leave share out")
        ignored = [name for name in ("name_weights", "pasted", "zoom_both") if getattr(self, name)]
        if self.sampling == "refcut" and ignored:
            raise ValueError(f"`sampling: refcut` draws as the paper does: leave {', '.join(ignored)} out")
        return self


def read_config(path: Path, data_root: Path) -> TrainConfig:
    """Read the configuration of a training run.

    Args:
        path: YAML file. A relative `parent` is relative to its folder.
        data_root: Folder that all other relative paths are relative to.

    Raises:
        DataError: If the file cannot be read or the configuration is invalid; the message names the reason.
    """
    try:
        config = TrainConfig.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise DataError(
            f"{path} is not a training configuration: {error}", hint="see model/configs/"
        ) from error
    return config.model_copy(
        update={
            "sources": [_resolve_paths(source, data_root) for source in config.sources],
            "base_weights": None if config.base_weights is None else data_root / config.base_weights,
            "reader": None if config.reader is None else data_root / config.reader,
            "exclude": None if config.exclude is None else data_root / config.exclude,
            "parent": None if config.parent is None else (path.parent / config.parent).resolve(),
        }
    )


def _resolve_paths(source: CocoSource | PartImageNetSource, root: Path) -> CocoSource | PartImageNetSource:
    paths = {name: root / value for name, value in source if isinstance(value, Path)}
    return source.model_copy(update=paths)
