"""Training from the command line, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from model.checkpoints.weights import load_network
from model.cli.make_synthetic_data import write_synthetic_data
from model.cli.train import main
from model.training.training_state import load_state
from tests.support.recorded import REPOSITORY
from tests.support.training_runs import logged

CONFIGS = REPOSITORY / "model" / "configs"
LIMIT_S = 300


def smoke_arguments(data: Path, out: Path) -> list[str]:
    return [str(CONFIGS / "smoke.yaml"), "--data", str(data), "--out", str(out), "--threads", "1"]


def smoke_command(data: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "model", "train", *smoke_arguments(data, out)]


def resume(data: Path, out: Path) -> None:
    """Run the command again, to its end."""
    again = subprocess.run(
        smoke_command(data, out), cwd=REPOSITORY, capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert "resuming at stage" in again.stdout


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_command_line_to_the_same_end(tmp_path: Path) -> None:
    write_synthetic_data(tmp_path)
    cut = tmp_path / "cut"
    killed = subprocess.Popen(
        smoke_command(tmp_path, cut), cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + LIMIT_S
    while not (cut / "checkpoint.safetensors").exists() or len(logged(cut)) < 2:
        assert killed.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    resume(tmp_path, cut)
    whole = tmp_path / "whole"
    main(smoke_arguments(tmp_path, whole))
    assert len(logged(whole)) == 10
    assert [(r["stage"], r["step"]) for r in logged(cut)] == [(r["stage"], r["step"]) for r in logged(whole)]
    # Sums in two processes may differ in their last digits, as arrays lie at other addresses.
    losses = [record["loss"] for record in logged(whole)]
    assert [record["loss"] for record in logged(cut)] == pytest.approx(losses, rel=1e-4)
    left = ["checkpoint.safetensors", "curves.png", "network.safetensors", "steps.jsonl", "tensorboard"]
    # A kill in the middle of writing weights leaves the half-written file under a hidden name.
    assert sorted(path.name for path in cut.iterdir() if not path.name.startswith(".")) == left
    one, other = (load_file(run / "network.safetensors") for run in (cut, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load_network(cut / "network.safetensors").config.embed_dim == 160


@pytest.mark.slow
def test_sigterm_saves_the_run_after_its_step_and_ends_it(tmp_path: Path) -> None:
    write_synthetic_data(tmp_path)
    run, steps = tmp_path / "run", 2000
    long_run = yaml.safe_load((CONFIGS / "smoke.yaml").read_text())
    long_run["stages"] = [{"size_px": 64, "steps": steps, "samples": 4}]
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(long_run))
    _, *others = smoke_arguments(tmp_path, run)
    command = [sys.executable, "-m", "model", "train", str(tmp_path / "long.yaml"), *others]
    ended = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + LIMIT_S
    while not (run / "checkpoint.safetensors").exists():
        assert ended.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ended.terminate()
    assert ended.wait(LIMIT_S) == 0
    assert 0 < load_state(run, torch.device("cpu")).counters["step"] == len(logged(run)) < steps


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(CONFIGS / "smoke.yaml"), "--data", str(tmp_path), "--out", str(tmp_path), "--threads", "1"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "is not a part file" in message
    assert message.count("\n") == 1
