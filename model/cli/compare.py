"""Compare two versions on the holdout of a snapshot: images that neither of them was trained on.

A simulated annotator clicks every label of the holdout, with the snapshot's references, once with each network. Whether
the candidate is promoted is decided by `model.evaluation.promotion`.

    python -m model compare SNAPSHOT SERVING CANDIDATE --out figures.json
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
    """Run the command. Input that cannot be used ends in one line on stderr and exit status 2."""
    parser = command_parser("compare", __doc__)
    parser.add_argument("snapshot", type=Path, help="folder of the snapshot")
    parser.add_argument("serving", type=Path, help="folder of the version that serves")
    parser.add_argument("candidate", type=Path, help="folder of the version that may replace it")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument(
        "--max-masks",
        type=int,
        default=CompareSettings.max_masks,
        help="masks to compare on (default: %(default)s)",
    )
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
