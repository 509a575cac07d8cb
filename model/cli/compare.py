"""`python -m model compare SNAPSHOT SERVING CANDIDATE --out FILE`: two networks on images that neither
has learned from.

A robot annotates every label of the holdout, with the snapshot's references, once with each network. What comes of it is
for `model.evaluation.promotion` to decide.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from model.cli.common import command_parser
from model.data.snapshot import read_snapshot
from model.errors import ModelError
from model.evaluation.compare import CompareSettings, compare


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr when the input cannot be used."""
    parser = command_parser("compare", __doc__)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("serving", type=Path, help="folder of the weights that serve")
    parser.add_argument("candidate", type=Path, help="folder of the weights that may")
    parser.add_argument("--out", type=Path, help="file for all figures, JSON")
    parser.add_argument("--max-masks", type=int, default=CompareSettings.max_masks)
    arguments = parser.parse_args(argv)
    try:
        settings = CompareSettings(max_masks=arguments.max_masks)
        comparison = compare(
            read_snapshot(arguments.snapshot), (arguments.serving, arguments.candidate), settings
        )
    except ModelError as error:
        parser.error(str(error))
    text = json.dumps(comparison.to_json(), indent=2, sort_keys=True)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")
