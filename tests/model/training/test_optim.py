"""Every trainable parameter has exactly one learning rate, and the rate follows its schedule."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from model.network.refcut import RefCut
from model.training.config import Schedule, TrainConfig
from model.training.optim import make_optimiser, scheduled_share
from tests.support.synthetic import TINY_CONFIGS, drawn_objects
from tests.support.training_runs import make_trainer, run

ADAM: dict[str, Any] = {"optimiser": "adam", "betas": (0.9, 0.999), "weight_decay": 0.0}


def config_with(**options: Any) -> TrainConfig:
    return TrainConfig.model_validate({"preset": "xtiny", "sources": [], "stages": []} | options)


@pytest.mark.parametrize("options", [{}, ADAM, ADAM | {"block_decay": 1.0, "rate_head": 1e-4}])
@pytest.mark.parametrize("kind", sorted(TINY_CONFIGS))
def test_every_trainable_parameter_is_in_the_optimiser_exactly_once(
    kind: str, options: dict[str, Any]
) -> None:
    network = RefCut(TINY_CONFIGS[kind])
    optimiser = make_optimiser(network, config_with(**options))
    optimised = [id(p) for group in optimiser.param_groups for p in group["params"]]
    assert len(optimised) == len(set(optimised))
    assert set(optimised) == {id(p) for p in network.parameters() if p.requires_grad}


def test_frozen_features_stay_as_they_are_and_all_else_learns(tmp_path: Path) -> None:
    trainer = make_trainer("frozen", tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    run(trainer, drawn_objects(tmp_path, 4))
    after = trainer.network.state_dict()
    frozen = ("backbone.", "comparison_")
    assert all(torch.equal(before[name], after[name]) == name.startswith(frozen) for name in before)


def test_adam_has_no_weight_decay() -> None:
    network = RefCut(TINY_CONFIGS["simpleclick"])
    adam = make_optimiser(network, config_with(**ADAM))
    assert type(adam) is torch.optim.Adam
    assert {group["weight_decay"] for group in adam.param_groups} == {0}
    assert {group["betas"] for group in adam.param_groups} == {(0.9, 0.999)}
    with pytest.raises(ValueError, match="without weight decay"):
        config_with(optimiser="adam", weight_decay=0.02)


def test_multistep_drops_by_its_factor_at_each_milestone() -> None:
    schedule = Schedule(kind="multistep", milestones=[4, 8], factor=0.1)
    shares = [scheduled_share(step, 10, 2, schedule, (4, 8)) for step in range(10)]
    assert shares == pytest.approx([0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_warms_up_and_ends_near_nothing() -> None:
    shares = [scheduled_share(step, 100, 10, Schedule()) for step in range(100)]
    assert shares[:10] == pytest.approx([0.1 * number for number in range(1, 11)])
    assert all(later < earlier for earlier, later in pairwise(shares[10:]))
    assert 0.01 <= shares[-1] < 0.012
