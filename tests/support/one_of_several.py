"""Two processes that train together on synthetic data, as `torchrun` starts them, but forked after the imports.

`python -m tests.support.one_of_several DATA OUT PORT`: first one stage, in which each process has a folder of its own to
write to; then, in two new processes, two stages in the folder of the first.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import torch
import torch._dynamo  # an optimiser imports it at its first step: here once for all processes

from model.training.config import TrainConfig
from model.training.distributed import Processes
from model.training.run import train

STAGE = {"size_px": 64, "steps": 2, "samples": 4, "loss": "normalised_focal"}


def config_of(data: Path, stages: int, accumulate: int = 1) -> TrainConfig:
    """A run whose learning rate does not depend on its length."""
    source = {
        "json_path": data / "synthetic/parts.json",
        "image_dir": data / "synthetic",
        "grouping": "object",
    }
    given = {
        "preset": "xtiny",
        "sources": [source],
        "sampling": "refcut",
        "augmentation": "simpleclick",
        "stages": [STAGE] * stages,
        "schedule": {"kind": "multistep"},
        "warmup_steps": 0,
        "accumulate": accumulate,
        "loader_workers": 0,
    }
    return TrainConfig.model_validate(given)


def train_as(rank: int, port: int, data: Path, out: Path, stages: int, shared: bool) -> None:
    """One process of a run, with the environment that `torchrun` gives it."""
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    torch.set_num_threads(1)
    with Processes.from_environment() as processes:
        assert processes.count == 2
        folder = out / ("run0" if shared else f"run{processes.rank}")
        network = train(config_of(data, stages), folder, torch.device("cpu"), processes)
        torch.save(network.state_dict(), out / f"after{stages}-{processes.rank}.pt")


def main() -> None:
    """Train twice; fail if a process fails."""
    data, out, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    forking = multiprocessing.get_context("fork")
    for stages, shared in ((1, False), (2, True)):
        ranks = [
            forking.Process(target=train_as, args=(rank, port, data, out, stages, shared))
            for rank in range(2)
        ]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        assert [rank.exitcode for rank in ranks] == [0, 0]


if __name__ == "__main__":
    main()
