"""The checkpoint of a run comes back as it was, and nothing in it is code."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model.errors import TrainingError
from model.training.training_state import (
    CHECKPOINT_FILE,
    EARLIER_CHECKPOINT_FILE,
    TrainingState,
    has_checkpoint,
    load_state,
    save_state,
)
from tests.support.training_runs import make_trainer

CPU = torch.device("cpu")


class Hostile:
    """A pickle that makes a file where it is read."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._trace,)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_a_state_comes_back_as_it_was(kind: type[torch.optim.Optimizer], tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    layer.register_buffer("same", layer.weight.detach())  # two names of one tensor
    optimiser = kind([{"params": [layer.weight], "base_lr": 0.1}, {"params": [layer.bias]}], lr=1e-3)
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    state = TrainingState(
        layer.state_dict(), {"weight": torch.rand(2, 3)}, optimiser.state_dict(), {"step": 3, "seconds": 0.1}
    )
    save_state(state, tmp_path)
    assert has_checkpoint(tmp_path)
    read = load_state(tmp_path, CPU)
    torch.testing.assert_close(dict(read.network), dict(state.network), rtol=0, atol=0)
    torch.testing.assert_close(dict(read.average), dict(state.average), rtol=0, atol=0)
    torch.testing.assert_close(read.optimiser["state"], state.optimiser["state"], rtol=0, atol=0)
    assert read.optimiser["param_groups"] == state.optimiser["param_groups"]
    assert read.counters == state.counters


def test_a_pickle_of_an_earlier_version_is_refused_with_advice_and_not_read(tmp_path: Path) -> None:
    (tmp_path / EARLIER_CHECKPOINT_FILE).write_bytes(pickle.dumps(Hostile(tmp_path / "trace")))
    trainer = make_trainer("frozen", tmp_path)
    with pytest.raises(TrainingError, match=r"earlier version.*finish the run with that version, or delete"):
        trainer.resume()
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("damage", ["pickle", "short", "another format", "no description", "a name too many"])
def test_a_checkpoint_that_is_damaged_or_foreign_is_refused_and_nothing_of_it_runs(
    damage: str, tmp_path: Path
) -> None:
    path = tmp_path / CHECKPOINT_FILE
    trainer = make_trainer("frozen", tmp_path)
    trainer.save()
    if damage == "pickle":
        path.write_bytes(pickle.dumps(Hostile(tmp_path / "trace")))
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        metadata = {
            "another format": {"format": "refcut-training-0"},
            "no description": {"format": "refcut-training-1"},
            "a name too many": {"format": "refcut-training-1", "description": '{"numbers": {"other.x": 1}}'},
        }
        save_file({}, path, metadata[damage])
    with pytest.raises(TrainingError, match=CHECKPOINT_FILE):
        trainer.resume()
    assert not (tmp_path / "trace").exists()
