"""Write OpenVINO's form of a version into a folder, so that workers find it there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from model.cli.common import command_parser
from model.errors import ModelError
from model.runtime.select import prepare


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr when it cannot be done."""
    parser = command_parser("prepare-runtime", __doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="folder of OpenVINO's forms")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        prepare(arguments.weights, arguments.cache)
    except ModelError as error:
        parser.error(str(error))
