"""What a training of the reader is: read from YAML, checked, and saved beside what it produces."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from model.data.annotated_objects import AnnotatedObject, is_development, read_annotated_objects
from model.data.near_copies import read_excluded
from model.data.target_sampling import TargetKind
from model.errors import DataError
from model.training.growth import GrowingPart

Grouping = Literal["object", "photo", "regions"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReaderSet(_Strict):
    """One annotated set.

    Attributes:
        json_path: COCO-style part file (docs/data-formats.md).
        image_dir: Folder of its photographs.
        grouping: How annotations group into objects, as `model.data.annotated_objects.read_annotated_objects` takes it.
        targets: What can be asked for. "object": parts, pairs and subsets of parts, and the whole object.
            "parts": the same without the whole, as not every part is labelled. "instances": one thing at a time.
            "all_instances": that, or all things of a kind, as all of them are labelled. "regions": pieces without
            names, whose reference is another crop of the same photograph.
        share: How often a step draws from it, relative to the other sets.
        crops: How many cached crops of each photograph are used; None takes the configuration's.
        development: Evaluation only: use the development share of a training set instead of all of it.
    """

    json_path: Path
    image_dir: Path
    grouping: Grouping
    targets: TargetKind = "object"
    share: float = Field(1.0, gt=0)
    crops: int | None = Field(None, ge=1)
    development: bool = False


class ReaderTraining(_Strict):
    """A training of the reader alone, on cached features.

    Attributes:
        sets: What is trained on, by name.
        evaluation: What it is evaluated on, by name; never trained on.
        exclude: JSON that `near-copies` has written: photographs of each set to leave out.
        parent: File `reader.safetensors` of an earlier run, whose weights this one starts from; None starts anew.
        grow: What the reader has more of than its parent; at first it answers as the parent does.
        crops: How many cached crops of each photograph are used.
        seed: Decides weights and steps.
        steps: Length of the run.
        decay_steps: Number of last steps over which the learning rate falls to zero; before that it is constant.
        warmup_steps: Number of first steps over which it rises from zero.
        groups: Groups of photographs per step. Each photograph of a group has the others as its references.
        triples: Share of steps whose groups have three photographs instead of two.
        targets: Targets on each crop.
        name_weights: How often a part is asked for by its name, relative to the other parts of a crop; 1 if left out.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        average_decay: Decay of the exponential average of the weights, which is evaluated and kept.
        clip_norm: Longest gradient.
        development_share: Share of each training set that is left out of it.
        evaluation_limit: Samples of each kind and evaluation set.
        evaluation_minutes: Time between evaluations.
        checkpoint_minutes: Time between checkpoints.
    """

    sets: dict[str, ReaderSet]
    evaluation: dict[str, ReaderSet] = {}
    exclude: Path | None = None
    parent: Path | None = None
    grow: dict[GrowingPart, PositiveInt] = {}
    crops: int = Field(1, ge=1)
    seed: int = 0
    steps: int = Field(200_000, ge=1)
    decay_steps: int = Field(0, ge=0)
    warmup_steps: int = Field(40, ge=1)
    groups: int = Field(2, ge=1)
    triples: float = Field(0.15, ge=0, le=1)
    targets: int = Field(6, ge=1)
    name_weights: dict[str, PositiveFloat] = {}
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    average_decay: float = 0.995
    clip_norm: float = 1.0
    development_share: float = 0.05
    evaluation_limit: int = Field(120, ge=1)
    evaluation_minutes: float = 20.0
    checkpoint_minutes: float = 3.0


def read_reader_config(path: Path, data_root: Path) -> ReaderTraining:
    """Reads a training of the reader; relative paths in it are below `data_root`.

    Raises:
        DataError: If the file is not such a configuration.
    """
    try:
        config = ReaderTraining.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise DataError(
            f"{path} is not a configuration of the reader's training: {error}", hint="see model/configs/"
        ) from error

    def below(sets: dict[str, ReaderSet]) -> dict[str, ReaderSet]:
        return {
            name: one.model_copy(
                update={"json_path": data_root / one.json_path, "image_dir": data_root / one.image_dir}
            )
            for name, one in sets.items()
        }

    return config.model_copy(
        update={
            "sets": below(config.sets),
            "evaluation": below(config.evaluation),
            "exclude": None if config.exclude is None else data_root / config.exclude,
            "parent": None if config.parent is None else data_root / config.parent,
        }
    )


def training_objects(config: ReaderTraining, name: str) -> list[AnnotatedObject]:
    """Annotated objects of a training set without its development share and without near copies of protected photographs.

    Raises:
        DataError: If a file cannot be read.
    """
    excluded = set(read_excluded(config.exclude).get(name, []))
    one = config.sets[name]
    return [
        annotated_object
        for annotated_object in read_annotated_objects(one.json_path, one.image_dir, grouping=one.grouping)
        if annotated_object.image_path.name not in excluded
        and not is_development(annotated_object, config.development_share)
    ]


def evaluation_objects(config: ReaderTraining, name: str) -> list[AnnotatedObject]:
    """Annotated objects of an evaluation set, or its development share.

    Raises:
        DataError: If a file cannot be read.
    """
    one = config.evaluation[name]
    annotated_objects = read_annotated_objects(one.json_path, one.image_dir, grouping=one.grouping)
    if one.development:
        return [
            annotated_object
            for annotated_object in annotated_objects
            if is_development(annotated_object, config.development_share)
        ]
    return annotated_objects
