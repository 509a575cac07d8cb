"""A step is the same however it is cut up, and what is computed in bfloat16 stays close to float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import TrainingError
from model.training.trainer import Trainer
from tests.support.synthetic import drawn_objects
from tests.support.training_runs import batches_of, make_trainer


def without_chance(kind: str, run_dir: Path, **options: Any) -> Trainer:
    """A trainer that rolls no dice within a step: no click rounds, no dropout, large steps that show."""
    trainer = make_trainer(kind, run_dir, max_click_rounds=0, clip_norm=0.5, **options)
    trainer.network.head.dropout.p = 0.0
    return trainer


@pytest.mark.parametrize("loss", ["bce_and_dice", "normalised_focal"])
@pytest.mark.parametrize("sampling", ["groups", "refcut"])
def test_accumulated_gradients_are_those_of_one_large_batch(sampling: str, loss: str, tmp_path: Path) -> None:
    stage = {"size_px": 112, "steps": 1, "groups": 4, "samples": 4, "loss": loss}
    annotated_objects = drawn_objects(tmp_path, 4)
    found = {}
    for accumulate in (1, 4):
        trainer = without_chance(
            "simpleclick",
            tmp_path / str(accumulate),
            accumulate=accumulate,
            stages=[stage],
            sampling=sampling,
        )
        parts = batches_of(trainer, annotated_objects, 0)[0]
        assert len(parts) == accumulate
        figures = trainer._train_step(parts, trainer.config.stages[0])
        gradients = [p.grad for p in trainer.network.parameters() if p.grad is not None]
        found[accumulate] = figures, gradients
    assert found[4][0] == pytest.approx(found[1][0], rel=1e-5)
    assert len(found[1][1]) > 100
    for one, other in zip(found[1][1], found[4][1], strict=True):
        assert (one - other).abs().max() < 1e-4 * max(float(one.abs().max()), 1e-2)


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_used_where_it_is_native_unless_configured_otherwise(
    native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    annotated_objects = drawn_objects(tmp_path, 4)
    losses = {}
    for bfloat16 in (None, False, True):
        trainer = without_chance("simpleclick", tmp_path / str(bfloat16), bfloat16=bfloat16)
        losses[bfloat16] = trainer._train_step(
            batches_of(trainer, annotated_objects, 0)[0], trainer.config.stages[0]
        )[0]
    assert losses[None] == losses[native]
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.05)


def test_the_piece_that_a_correction_points_at_adds_to_the_loss_where_there_is_a_correction(
    tmp_path: Path,
) -> None:
    annotated_objects = drawn_objects(tmp_path, 4)

    def loss(pointed_share: float, max_click_rounds: int) -> float:
        trainer = make_trainer(
            "frozen", tmp_path / "run", pointed_share=pointed_share, max_click_rounds=max_click_rounds, seed=1
        )
        batches = batches_of(trainer, annotated_objects, 0)[0]
        return trainer._train_step(batches, trainer.config.stages[0])[0]

    assert loss(10.0, 3) > loss(0.0, 3) + 1
    assert loss(10.0, 0) == loss(0.0, 0)


def test_without_averaging_the_last_weights_are_shipped(tmp_path: Path) -> None:
    trainer = make_trainer("frozen", tmp_path, average_decay=0.0)
    annotated_objects = drawn_objects(tmp_path, 4)
    trainer._train_step(batches_of(trainer, annotated_objects, 0)[0], trainer.config.stages[0])
    for name, value in trainer.average.values.items():
        assert torch.equal(value, trainer.network.get_parameter(name))


def test_weights_that_are_no_numbers_are_never_written(tmp_path: Path) -> None:
    trainer = make_trainer("frozen", tmp_path)
    trainer.save()
    before = trainer.checkpoint_path.read_bytes()
    next(iter(trainer.average.values.values())).fill_(torch.nan)
    with pytest.raises(TrainingError, match="not numbers"):
        trainer.save()
    assert trainer.checkpoint_path.read_bytes() == before


def test_a_training_of_the_iou_estimate_alone_changes_nothing_else(tmp_path: Path) -> None:
    trainer = make_trainer("reader", tmp_path, judge_only=True)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer._train_step(batches_of(trainer, drawn_objects(tmp_path, 4), 0)[0], trainer.config.stages[0])
    changed = {
        name for name, value in trainer.network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed
    assert all(name.startswith(("candidates.judge.", "candidates.norm.")) for name in changed)
    assert set(trainer.average.values) >= changed
