"""`python -m model train-reader CONFIG --data FOLDER --cache FOLDER --out RUN`: trains the reader alone.

It reads cached features. Run it again to resume; SIGTERM saves and ends it. On several cores or GPUs:
`torchrun --nproc-per-node N -m model train-reader CONFIG ...`; a step's groups are shared among the processes.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

import torch

from model.cli.common import add_threads, command_parser
from model.errors import ModelError, WeightsError
from model.evaluation.reader_curve import ReaderEvaluation
from model.network.config import ReaderConfig
from model.network.reader import Reader
from model.training.distributed import Processes
from model.training.growth import grown_reader
from model.training.reader_config import ReaderTraining, evaluation_objects, read_reader_config
from model.training.reader_sampling import ReaderSampler
from model.training.reader_training import ReaderTrainer, load_reader


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = command_parser("train-reader", __doc__)
    parser.add_argument("config", type=Path, metavar="CONFIG", help="such as model/configs/reader.yaml")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that the config's paths are relative to"
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder that `cache-features` has written")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--crops", type=int, help="cached crops of each photograph, instead of the config's")
    add_threads(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr if configuration or cache cannot be used."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    try:
        with Processes.from_environment() as processes:
            config = read_reader_config(arguments.config, arguments.data)
            if arguments.crops is not None:
                config = config.model_copy(update={"crops": arguments.crops})
            _train(config, arguments.cache, arguments.out, processes)
    except ModelError as error:
        parser.error(str(error))


def first_reader(config: ReaderTraining, feature_dim: int) -> Reader:
    """The reader that a run begins with: its parent's weights, or fresh ones, grown as the configuration asks.

    Raises:
        WeightsError: If the parent cannot be read, reads features of another network, or cannot grow so.
    """
    reader = Reader(feature_dim, ReaderConfig()) if config.parent is None else load_reader(config.parent)
    if reader.embed.in_features != feature_dim:
        raise WeightsError(
            f"{config.parent} reads features of {reader.embed.in_features} numbers; the cache has {feature_dim}",
            hint="name a reader that was trained on features of the same network",
        )
    return grown_reader(reader, config.grow)


def _train(config: ReaderTraining, cache: Path, run_dir: Path, processes: Processes) -> None:
    evaluation = None
    if config.evaluation and processes.writes:
        annotated_objects = {name: evaluation_objects(config, name) for name in config.evaluation}
        evaluation = ReaderEvaluation(annotated_objects, cache, config.evaluation_limit)
    device = torch.device("cuda", processes.local_rank) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(config.seed)
    sampler = ReaderSampler(config, cache)
    reader = first_reader(config, sampler.feature_dim)
    trainer = ReaderTrainer(reader, config, sampler, run_dir, device, evaluation, processes)
    if trainer.resume() and processes.writes:
        print(f"resuming at step {trainer.step}", flush=True)
    signal.signal(signal.SIGTERM, lambda number, frame: trainer.stop())
    trainer.run()


if __name__ == "__main__":
    main()
