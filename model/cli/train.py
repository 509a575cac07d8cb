"""Train a network from a configuration: `python -m model train CONFIG --data FOLDER --out RUN`.

Run the same command again to resume a run that was killed. On several GPUs (or processes):
`torchrun --nproc-per-node N -m model train CONFIG ...`. Each step is split over the processes, so a configuration means
the same on any number of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from model.cli.common import add_threads, command_parser
from model.errors import ModelError
from model.training.config import read_config
from model.training.distributed import Processes
from model.training.run import train


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = command_parser("train", __doc__)
    parser.add_argument("config", type=Path, help="YAML file; see model/configs/")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that the paths in CONFIG are relative to"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run: checkpoint, log, curves, weights"
    )
    add_threads(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Exits with status 2 and one line on stderr if configuration or data cannot be used."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    processes = Processes.from_environment()
    try:
        with processes:
            train(read_config(arguments.config, arguments.data), arguments.out, processes.device, processes)
    except ModelError as error:
        parser.error(str(error))
