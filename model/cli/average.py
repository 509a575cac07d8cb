"""`python -m model average FIRST SECOND --share 0.7 --out DIR`: the weights between two versions.

For a network that has learned much of one kind of things: the weights between it and those it began with are often as
good on these things, and better on others (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022). Which
share is best has to be measured: `python -m model evaluate --weights DIR`.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from model.checkpoints.anchor import anchor_weights
from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE
from model.checkpoints.weights import load_network, save_version
from model.cli.common import command_parser
from model.errors import ModelError, WeightsError


def average(first: Path, second: Path, share: float, out: Path) -> None:
    """Writes into the folder `out` what lies between two versions: (1 - share) times the first, share times the second.

    Raises WeightsError when a version cannot be read, both have not one shape and base, or `out` is one of them.
    """
    if out.resolve() in (first.resolve(), second.resolve()):
        raise WeightsError(f"{out} is one of the versions to average", hint="name another folder for --out")
    end = load_network(second)
    begin = anchor_weights(end, second, first)
    learned = end.state_dict()
    between = {name: value.lerp(learned[name], share) for name, value in begin.items()}
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(first / BASE_FILE, out / BASE_FILE)
    save_version(between, end.config, out / BASE_FILE, out / VERSION_FILE)


def share_of(text: str) -> float:
    """A share from 0 to 1 on the command line."""
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return share


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr when the versions cannot be averaged."""
    parser = command_parser("average", __doc__)
    parser.add_argument("first", type=Path, help="folder of a version")
    parser.add_argument("second", type=Path, help="folder of one with the same shape and base")
    parser.add_argument("--share", type=share_of, default=0.5, help="of the second one, 0 to 1")
    parser.add_argument("--out", type=Path, required=True, help="folder for the outcome")
    arguments = parser.parse_args(argv)
    try:
        average(arguments.first, arguments.second, arguments.share, arguments.out)
    except ModelError as error:
        parser.error(str(error))
