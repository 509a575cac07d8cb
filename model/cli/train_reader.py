"""Trains the reader alone on cached features; run it again to resume. SIGTERM saves and ends it."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import torch

from model.cli.common import OneLineParser
from model.errors import ModelError
from model.evaluation.reader_curve import ReaderEvaluation
from model.network.config import ReaderConfig
from model.network.reader import Reader
from model.training.reader_config import evaluation_scenes, read_reader_config
from model.training.reader_sampling import ReaderSampler
from model.training.reader_training import ReaderTrainer


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = OneLineParser(prog="python -m model.cli.train_reader", description=__doc__)
    parser.add_argument("config", type=Path, metavar="CONFIG", help="such as model/configs/reader.yaml")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that the config's paths are relative to"
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder that `cache-features` has written")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--crops", type=int, help="cached crops of each photograph, instead of the config's")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr if configuration or cache cannot be used."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    try:
        config = read_reader_config(arguments.config, arguments.data)
        if arguments.crops is not None:
            config = config.model_copy(update={"crops": arguments.crops})
        sampler = ReaderSampler(config, arguments.cache)
        evaluated = {name: evaluation_scenes(config, name) for name in config.evaluation}
        evaluation = ReaderEvaluation(evaluated, arguments.cache, config.evaluation_limit)
        torch.manual_seed(config.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        reader = Reader(sampler.feature_dim, ReaderConfig())
        trainer = ReaderTrainer(
            reader, config, sampler, arguments.out, device, evaluation if evaluated else None
        )
        if trainer.resume():
            print(f"resuming at step {trainer.step}", flush=True)
        signal.signal(signal.SIGTERM, lambda number, frame: trainer.stop())
        trainer.run()
    except ModelError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
