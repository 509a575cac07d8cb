"""Write OpenVINO's form of a version into a cache folder, so that workers do not have to convert it when they load it.

python -m model prepare-runtime WEIGHTS --cache FOLDER
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from model.cli.common import command_parser
from model.errors import ModelError
from model.runtime.select import prepare


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Input that cannot be used ends in one line on stderr and exit status 2."""
    parser = command_parser("prepare-runtime", __doc__)
    parser.add_argument("weights", type=Path, help="folder of a version, or file of a whole network")
    parser.add_argument("--cache", type=Path, required=True, help="cache folder of converted networks")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        prepare(arguments.weights, arguments.cache)
    except ModelError as error:
        parser.error(str(error))
