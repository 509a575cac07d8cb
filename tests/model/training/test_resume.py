"""A run that is killed goes on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.synthetic import drawn_objects
from tests.support.training_runs import PAPER, KilledError, logged, make_trainer, run

ALL = pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("frozen", {}),
        ("reader", {}),
        ("reader", {"rate_reader": 1e-3}),
        ("simpleclick", {}),
        ("simpleclick", PAPER),
    ],
    ids=["frozen", "reader", "reader is tuned", "simpleclick", "paper"],
)


@pytest.mark.slow
@ALL
def test_a_killed_run_resumes_to_the_same_losses_and_weights(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    annotated_objects = drawn_objects(tmp_path, 4)
    whole = make_trainer(kind, tmp_path / "whole", **options)
    run(whole, annotated_objects)
    cut = make_trainer(kind, tmp_path / "cut", **options)
    with pytest.raises(KilledError):
        run(cut, annotated_objects, killed=True)
    cut.checkpoint_path.with_name(".checkpoint.safetensors.partial").write_bytes(
        b"the kill came while this was written"
    )
    with (tmp_path / "cut" / "steps.jsonl").open("a") as log:
        log.write('{"stage": 0, "px"')
    again = make_trainer(kind, tmp_path / "cut", **options)
    assert again.resume()
    assert (again.stage, again.step) == (0, 1)
    run(again, annotated_objects)
    assert len(logged(tmp_path / "whole")) == 4
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")
    for name, value in whole.average.values.items():
        assert torch.equal(value, again.average.values[name])


def test_a_run_without_a_checkpoint_starts_from_the_beginning(tmp_path: Path) -> None:
    trainer = make_trainer("frozen", tmp_path)
    trainer.log.path.write_text('{"left by": "a run that was killed before its first checkpoint"')
    assert not trainer.resume()
    assert trainer.log.path.read_text() == ""
