"""Compare two networks mask by mask, with standard errors. Small differences are not called differences.

Two folders of `python -m model evaluate --out` over the same work:

    python -m model compare runs/eval_before runs/eval_after

Or two versions on the holdout of a snapshot, images that neither was trained on. A simulated annotator clicks every label
of the holdout with the snapshot's references, once with each network; whether the candidate is promoted is decided by
`model.evaluation.promotion`:

    python -m model compare SNAPSHOT SERVING CANDIDATE --out figures.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from model.cli.common import command_parser
from model.data.snapshot import read_snapshot
from model.errors import DataError, ModelError
from model.evaluation.compare import CompareSettings, compare
from model.evaluation.paired import compare_results
from model.evaluation.records import read_records, read_settings
from model.evaluation.report import RULE, as_json, paired_table


def compare_folders(first: Path, second: Path) -> tuple[str, str]:
    """Compare two folders of results.

    Args:
        first: Folder of the first network's results.
        second: Folder of the second network's results over the same work.

    Returns:
        The figures as Markdown and as JSON.

    Raises:
        DataError: If a folder cannot be read, the sessions had other limits, or no work is common to both.
    """
    settings = [read_settings(folder) for folder in (first, second)]
    for name in ("clicks", "development"):
        if settings[0].get(name) != settings[1].get(name):
            raise DataError(f"{first} and {second} differ in {name!r}", hint="evaluate both in the same way")
    max_clicks = int(settings[0]["clicks"]["max_clicks"])
    found = compare_results(read_records(first), read_records(second), max_clicks)
    if not found:
        raise DataError(
            f"{first} and {second} have no sample and mode in common", hint="evaluate both on the same sets"
        )
    names = [str(one.get("weights", "?")) for one in settings]
    lines = [f"first: {names[0]} ({first}); second: {names[1]} ({second}). {RULE}", ""]
    for mode, cells in found.items():
        for set_name in dict.fromkeys(cell.set_name for cell in cells):
            own = [cell for cell in cells if cell.set_name == set_name]
            lines += [f"## {set_name}, {mode}", "", *paired_table(own, max_clicks), ""]
    return "\n".join(lines), json.dumps(
        {"first": names[0], "second": names[1], "modes": as_json(found)}, indent=2
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Input that cannot be used ends in one line on stderr and exit status 2."""
    parser = command_parser("compare", __doc__)
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="two folders of results; or snapshot, folder of the version that serves, folder of the candidate",
    )
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument(
        "--max-masks",
        type=int,
        default=CompareSettings.max_masks,
        help="masks of the holdout to compare on (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    paths: list[Path] = arguments.paths
    try:
        if len(paths) == 2:
            shown, content = compare_folders(*paths)
        elif len(paths) == 3:
            settings = CompareSettings(max_masks=arguments.max_masks)
            comparison = compare(read_snapshot(paths[0]), (paths[1], paths[2]), settings)
            shown = content = json.dumps(comparison.to_json(), indent=2, sort_keys=True)
        else:
            parser.error("two folders of results, or a snapshot and two versions, are compared; see --help")
    except ModelError as error:
        parser.error(str(error))
    print(shown)
    if arguments.out is not None:
        arguments.out.write_text(content + "\n")
