"""A run that is killed goes on as if nothing had happened; and nothing trainable is left out or trained twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.data.pairs import PairSettings
from model.data.scenes import Scene
from model.network.refcut import RefCut
from model.training.batches import Batch, Batches, SourcedScenes
from model.training.config import Stage, TrainConfig
from model.training.loop import Trainer, parameter_groups
from tests.model.made_up import TINY_CONFIGS, drawn_scenes, random_network

STAGES = [
    Stage(size_px=112, steps=3, groups=1),
    Stage(size_px=112, steps=1, groups=1, loss="normalised_focal"),
]
KILLED_AT = 2
BOTH = pytest.mark.parametrize("kind", sorted(TINY_CONFIGS))


class KilledError(Exception):
    """What ends a run in the middle here."""


def make_trainer(kind: str, run_dir: Path) -> Trainer:
    torch.manual_seed(0)
    config = TrainConfig(
        preset=kind, base_weights=Path(), sources=[], stages=STAGES, warmup_steps=2, checkpoint_minutes=1000
    )
    return Trainer(
        random_network(TINY_CONFIGS[kind]), config, run_dir, torch.device("cpu"), lambda averaged: None
    )


def batches_of(trainer: Trainer, scenes: list[Scene], number: int) -> Batches:
    patch_px = trainer.network.config.patch_px
    return Batches(
        [SourcedScenes(scenes, 1.0)], STAGES[number], patch_px, number, trainer.step, PairSettings()
    )


def run(trainer: Trainer, scenes: list[Scene], *, killed: bool = False) -> None:
    """Trains all that is left; `killed` saves before the second step of the first stage and dies before the third."""

    def until_killed(batches: Batches) -> Iterator[Batch]:
        for number in range(len(batches)):
            if killed and trainer.step == 1:
                trainer.save()
            if killed and trainer.step == KILLED_AT:
                raise KilledError
            yield batches[number]

    for number in range(trainer.stage, len(STAGES)):
        trainer.run_stage(until_killed(batches_of(trainer, scenes, number)), STAGES[number])


def losses(run_dir: Path) -> list[float]:
    """The losses in the order of the steps; of a step that was taken twice, the second."""
    last: dict[tuple[int, int], float] = {}
    stage, before = 0, -1
    for line in (run_dir / "steps.jsonl").read_text().splitlines():
        record = json.loads(line)
        stage += record["step"] == 1 and before == STAGES[0].steps
        before = record["step"]
        last[stage, before] = record["loss"]
    return [last[key] for key in sorted(last)]


@BOTH
def test_a_killed_run_goes_on_to_the_same_losses_and_weights(kind: str, tmp_path: Path) -> None:
    scenes = drawn_scenes(tmp_path, 4)
    whole = make_trainer(kind, tmp_path / "whole")
    run(whole, scenes)
    cut = make_trainer(kind, tmp_path / "cut")
    with pytest.raises(KilledError):
        run(cut, scenes, killed=True)
    cut.checkpoint_path.with_suffix(".partial").write_bytes(b"the kill came while this was written")
    again = make_trainer(kind, tmp_path / "cut")
    assert again.resume()
    assert (again.stage, again.step) == (0, 1)
    run(again, scenes)
    assert len(losses(tmp_path / "whole")) == 4
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    for name, value in whole.average.values.items():
        assert torch.equal(value, again.average.values[name])


def test_a_run_without_a_checkpoint_starts_from_the_beginning(tmp_path: Path) -> None:
    assert not make_trainer("frozen", tmp_path).resume()


@BOTH
def test_every_trainable_parameter_is_in_the_optimiser_exactly_once(kind: str, tmp_path: Path) -> None:
    network = RefCut(TINY_CONFIGS[kind])
    config = make_trainer(kind, tmp_path).config
    optimised = [id(p) for group in parameter_groups(network, config) for p in group["params"]]
    assert len(optimised) == len(set(optimised))
    assert set(optimised) == {id(p) for p in network.parameters() if p.requires_grad}


def test_frozen_features_stay_as_they_are_and_all_else_learns(tmp_path: Path) -> None:
    trainer = make_trainer("frozen", tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    run(trainer, drawn_scenes(tmp_path, 4))
    after = trainer.network.state_dict()
    frozen = ("backbone.", "comparison_")
    assert all(torch.equal(before[name], after[name]) == name.startswith(frozen) for name in before)
