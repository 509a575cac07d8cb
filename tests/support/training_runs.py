"""Small training runs in this process, which can be killed in the middle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from model.data.annotated_objects import AnnotatedObject
from model.training.batches import Batch, Batches, Part
from model.training.config import Stage, TrainConfig
from model.training.sampling import SourcedObjects, make_sampler
from model.training.trainer import Trainer
from tests.support.synthetic import TINY_CONFIGS, random_network

STAGES = [
    Stage(size_px=112, steps=3, groups=1, samples=2),
    Stage(size_px=112, steps=1, groups=1, samples=2, loss="normalised_focal"),
]
KILLED_AT = 2
PAPER: dict[str, Any] = {
    "sampling": "refcut",
    "augmentation": "simpleclick",
    "optimiser": "adam",
    "weight_decay": 0.0,
    "schedule": {"kind": "multistep", "milestones": [2]},
    "accumulate": 2,
    "bfloat16": True,
    "clip_norm": None,
    "average_decay": 0.0,
}
"""What the paper's run has that ours does not, on small pictures."""


class KilledError(Exception):
    """What ends a run in the middle here."""


def make_trainer(kind: str, run_dir: Path, **options: Any) -> Trainer:
    """A trainer of a network of random weights. options: of `TrainConfig`."""
    torch.manual_seed(0)
    given = {"stages": STAGES, "warmup_steps": 2, "checkpoint_minutes": 1000, "bfloat16": False} | options
    config = TrainConfig.model_validate({"preset": kind, "sources": []} | given)
    milestones = tuple(config.schedule.milestones)
    return Trainer(
        random_network(TINY_CONFIGS[kind]),
        config,
        run_dir,
        torch.device("cpu"),
        lambda averaged: None,
        milestone_steps=milestones,
    )


def batches_of(trainer: Trainer, annotated_objects: list[AnnotatedObject], number: int) -> Batches:
    """Return the batches of a stage, from the step the trainer is at."""
    sampler = make_sampler([SourcedObjects(annotated_objects, 1.0)], trainer.network.config, trainer.config)
    part = Part(accumulate=trainer.config.accumulate)
    return Batches(sampler, trainer.config.stages[number], number, trainer.step, part)


def run(trainer: Trainer, annotated_objects: list[AnnotatedObject], *, killed: bool = False) -> None:
    """Trains all that is left; `killed` saves before the second step of the first stage and dies before the third."""

    def until_killed(batches: Batches) -> Iterator[list[Batch]]:
        for number in range(len(batches)):
            if killed and trainer.step == 1:
                trainer.save()
            if killed and trainer.step == KILLED_AT:
                raise KilledError
            yield batches[number]

    with trainer.log:
        for number in range(trainer.stage, len(STAGES)):
            trainer.run_stage(
                until_killed(batches_of(trainer, annotated_objects, number)), trainer.config.stages[number]
            )


def logged(run_dir: Path) -> list[dict[str, float]]:
    """The lines of steps.jsonl."""
    return [json.loads(line) for line in (run_dir / "steps.jsonl").read_text().splitlines()]
