"""`python -m model cache-features CONFIG --data FOLDER --cache FOLDER`: computes what `train-reader` reads.

Crops that are there already are not computed again. Of evaluation sets only crop 0, the whole photograph, is cached.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from model.checkpoints.version_folder import BASE_FILE, file_digest
from model.checkpoints.weights import load_network
from model.cli.common import add_weights, command_parser
from model.data.feature_cache import write_features
from model.errors import ModelError, WeightsError
from model.predictor_config import serving_settings
from model.runtime.select import with_runtime
from model.training.reader_config import evaluation_objects, read_reader_config, training_objects


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = command_parser("cache-features", __doc__)
    parser.add_argument("config", type=Path, metavar="CONFIG", help="configuration of the reader's training")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that the config's paths are relative to"
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder of the cache")
    add_weights(parser)
    parser.add_argument(
        "--crops",
        type=int,
        nargs="+",
        help="numbers of the crops to compute (default: those that each set uses)",
    )
    parser.add_argument("--sets", nargs="+", help="only these training sets")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr if configuration or data cannot be used."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    try:
        config = read_reader_config(arguments.config, arguments.data)
        trained = load_network(arguments.weights)
        if not trained.config.similarity:
            raise WeightsError(
                f"{arguments.weights} has no frozen features to cache",
                hint="take weights with a frozen encoder",
            )
        settings = serving_settings(trained.config)
        network = with_runtime(trained, settings, "auto")
        digest = file_digest(arguments.weights / BASE_FILE)
        for name in config.evaluation:
            annotated_objects = evaluation_objects(config, name)
            write_features(
                network, annotated_objects, arguments.cache / f"{name}-0", 0, settings.network_px, digest
            )
        for name in arguments.sets or config.sets:
            annotated_objects = training_objects(config, name)
            used = range(config.sets[name].crops or config.crops)
            for crop_number in arguments.crops or used:
                print(f"crop {crop_number} of {name}: {len(annotated_objects)} photographs", flush=True)
                folder = arguments.cache / f"{name}-{crop_number}"
                write_features(network, annotated_objects, folder, crop_number, settings.network_px, digest)
    except ModelError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
