"""One process of a run under `torchrun`: trains on synthetic data, each process with its own folder to write to.

python -m torch.distributed.run --nproc-per-node N -m tests.support.one_of_several DATA OUT STAGES SHARED
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

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


def main() -> None:
    """Train as one process of the run."""
    data, out, stages, shared = (
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4] == "shared",
    )
    torch.set_num_threads(1)
    with Processes.from_environment() as processes:
        assert processes.count == 2
        folder = out / ("run0" if shared else f"run{processes.rank}")
        network = train(config_of(data, stages), folder, torch.device("cpu"), processes)
        torch.save(network.state_dict(), out / f"after{stages}-{processes.rank}.pt")


if __name__ == "__main__":
    main()
