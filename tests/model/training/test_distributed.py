"""Two processes under torchrun are one run: equal weights, one writer, and what a single process would have come to."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.checkpoints.weights import load_network
from model.cli.make_synthetic_data import write_synthetic_data
from model.finetuning.run import FineTuning
from model.training.distributed import SINGLE_PROCESS, child_signal_restored
from model.training.run import train
from tests.support.one_of_several import config_of
from tests.support.recorded import REPOSITORY
from tests.support.running_backend import free_port
from tests.support.synthetic_snapshot import QUICK, fish_snapshot, parent_version
from tests.support.training_runs import logged

LIMIT_S = 400


def torchrun(*module: str) -> str:
    """What two processes print that run a module together."""
    return output_of("torch.distributed.run", "--standalone", "--nproc-per-node", "2", *module)


def output_of(module: str, *arguments: str) -> str:
    """What `python -m MODULE ARGUMENTS` prints."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_and_resume_after_a_stop(tmp_path: Path) -> None:
    write_synthetic_data(tmp_path)
    output = output_of("tests.support.one_of_several", str(tmp_path), str(tmp_path), str(free_port()))
    assert (tmp_path / "run0" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "run1").exists(), "only the first process writes"
    assert "resuming at stage 1, step 0" in output
    for stages in (1, 2):
        one, other = (torch.load(tmp_path / f"after{stages}-{rank}.pt") for rank in (0, 1))
        assert all(torch.equal(one[name], other[name]) for name in one)
    network = train(config_of(tmp_path, 2, accumulate=2), tmp_path / "single", torch.device("cpu"))
    single, several = logged(tmp_path / "single"), logged(tmp_path / "run0")
    assert len(single) == len(several) == 4
    for alone, together in zip(single, several, strict=True):
        assert together == pytest.approx(alone, rel=1e-3, abs=1e-6)
    moved = [
        float((value - one[name]).abs().max()) for name, value in network.state_dict().items() if name in one
    ]
    assert max(moved) < 2e-3


@pytest.mark.slow
def test_two_processes_fine_tune_to_the_weights_of_one(tmp_path: Path) -> None:
    snapshot, parent = fish_snapshot(tmp_path / "snapshot"), parent_version(tmp_path / "parent")
    command = ["-m", "model", "finetune", str(tmp_path / "snapshot"), "--parent", str(parent)]
    torchrun(*command, "--out", str(tmp_path / "several"), "--settings", QUICK.model_dump_json())
    (tmp_path / "single").mkdir()
    FineTuning(
        snapshot, parent, tmp_path / "single", QUICK, lambda progress: None, SINGLE_PROCESS, accumulate=2
    ).run()
    before, single, several = (
        load_network(folder).state_dict() for folder in (parent, tmp_path / "single", tmp_path / "several")
    )
    learned = max(float((single[name] - before[name]).abs().max()) for name in before)
    apart = max(float((single[name] - several[name]).abs().max()) for name in before)
    assert apart < learned / 5
    assert len(logged(tmp_path / "several")) == QUICK.steps


def another(*_: object) -> None:
    """What a loader installs."""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None])
def test_what_was_there_before_is_there_again(before: object) -> None:
    signal.signal(signal.SIGCHLD, before)  # type: ignore[arg-type]

    def fail() -> None:
        with child_signal_restored():
            signal.signal(signal.SIGCHLD, another)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert signal.getsignal(signal.SIGCHLD) is before


def test_outside_the_main_thread_nothing_is_touched() -> None:
    signal.signal(signal.SIGCHLD, another)
    entered = threading.Event()

    def work() -> None:
        with child_signal_restored():
            entered.set()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered.is_set()
    assert signal.getsignal(signal.SIGCHLD) is another
