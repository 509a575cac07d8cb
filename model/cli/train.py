"""Train a network.

The command resumes when it is run again with the same --out; SIGTERM saves and ends it. On several GPUs the work of a
step is divided among the processes, so a configuration gives the same training on any number of them.

    python -m model train model/configs/refcut_s14.yaml --data DATA --out runs/s14
    torchrun --nproc-per-node 4 -m model train CONFIG --data DATA --out RUN      # on several GPUs
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from model.cli.common import add_threads, command_parser
from model.errors import ModelError
from model.training.config import read_config
from model.training.distributed import Processes
from model.training.run import train


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
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
    """Run the command. Input that cannot be used ends in one line on stderr and exit status 2."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    processes = Processes.from_environment()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    try:
        with processes:
            config = read_config(arguments.config, arguments.data)
            train(config, arguments.out, processes.device, processes, stop.is_set)
    except ModelError as error:
        parser.error(str(error))
