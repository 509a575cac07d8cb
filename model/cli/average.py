"""Average the weights of two versions.

The weights between a network and the one it was trained from are often as good on what it has learned, and better on
everything else (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022). Which share is best has to be
measured with `python -m model evaluate --weights DIR`.

    python -m model average runs/before runs/after --share 0.7 --out runs/between
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from model.checkpoints.anchor import average
from model.cli.common import command_parser
from model.errors import ModelError


def share_of(text: str) -> float:
    """Read a share from 0 to 1. Raises ArgumentTypeError for any other text."""
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return share


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Input that cannot be used ends in one line on stderr and exit status 2."""
    parser = command_parser("average", __doc__)
    parser.add_argument("first", type=Path, help="folder of a version or of a training")
    parser.add_argument("second", type=Path, help="another one with the same shape and base")
    parser.add_argument(
        "--share", type=share_of, default=0.5, help="share of the second version, 0 to 1 (default: 0.5)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the result")
    arguments = parser.parse_args(argv)
    try:
        average(arguments.first, arguments.second, arguments.share, arguments.out)
    except ModelError as error:
        parser.error(str(error))
