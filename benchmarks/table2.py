"""One-shot segmentation refined by clicks, against clicks with a reference (RefCut paper, table 2).

    python -m benchmarks.table2 --data SET --out DIR [--plain-weights DIR] [--limit N --at-least N]

Every row annotates the same masks. The first mask of the one-shot rows comes from the reference without any click, and
clicks then refine it; a mask that is good enough before any click takes 0 clicks. Matching compares the frozen features
of the network's encoder (`model.evaluation.first_masks`); its clicks use no reference. --plain-weights names a network
that was trained without references; without it, those rows use --weights without a reference. Run it again with the same
--out to resume.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import machine, print_table
from model.checkpoints.version_folder import version_name
from model.cli import evaluate
from model.cli.common import add_threads, add_weights
from model.data.readers import HINT
from model.evaluation.metrics import NOC_IOUS, groups_of, make_cell
from model.evaluation.paired import compare_pairs, pair_up
from model.evaluation.records import Record, read_records
from model.evaluation.report import RULE
from model.evaluation.samples import KINDS

GROUPS = ("total", *KINDS)


@dataclass(frozen=True)
class Row:
    """One way of annotating.

    Attributes:
        name: What the table shows.
        mode: The mode that is evaluated.
        plain: Whether the network is the one that was trained without references.
    """

    name: str
    mode: str
    plain: bool


ROWS = (
    Row("clicks alone", "none", plain=True),
    Row("nearest-patch matching, then clicks", "nearest", plain=True),
    Row("prototype matching, then clicks", "prototype", plain=True),
    Row("mask of the reference alone, then clicks with the reference", "alone", plain=False),
    Row("clicks with the reference", "right", plain=False),
)
"""The last row is compared with all others."""


def run(arguments: argparse.Namespace, weights: Path, out: Path, modes: Sequence[str]) -> list[Record]:
    """Evaluate one network as `python -m model evaluate` does, and return the results of the modes.

    The command's own tables go to stderr.
    """
    given = ["--weights", str(weights), "--out", str(out), "--modes", *modes]
    for description in arguments.data:
        given += ["--data", description]
    for name in ("limit", "at_least", "max_clicks", "development", "workers", "threads", "runtime"):
        value = getattr(arguments, name)
        given += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    parsed = evaluate.make_parser().parse_args(given)
    with redirect_stdout(sys.stderr):
        evaluate.evaluate(parsed)
        sets = [evaluate.read_set(description, parsed.development) for description in parsed.data]
        samples = [evaluate.choose_samples(one, parsed.limit, parsed.at_least) for one in sets]
    return evaluate.select(read_records(out), sets, samples)


def table(set_name: str, group: str, rows: Sequence[tuple[str, list[Record]]], max_clicks: int) -> None:
    """Print the rows of a set and group of targets; the last row is compared with each.

    Args:
        set_name: The set.
        group: Group of targets.
        rows: Names of the rows, with the results of the same samples.
        max_clicks: Number of clicks after which a session ended.
    """
    header = ["first mask", "n", "photographs", "IoU&0", "IoU&1", "IoU&1 >= 0.8"]
    header += [f"NoC@{round(100 * iou)}" for iou in NOC_IOUS]
    header += ["last row: NoC@85 ratio", "verdict", "last row: IoU&1 change", "verdict"]
    shown = []
    for name, records in rows:
        own = [record for record in records if group in groups_of(record) and record.set_name == set_name]
        last = [r for r in rows[-1][1] if group in groups_of(r) and r.set_name == set_name]
        if not own:
            continue
        cell = make_cell(own, max_clicks)
        line: list[object] = [name, cell.count, cell.photographs, cell.start_iou or "-"]
        line += [cell.iou_after[1], cell.good_first, *(cell.clicks_to[iou].rounded(2) for iou in NOC_IOUS)]
        pairs = pair_up(own, last)
        if name == rows[-1][0] or not pairs:
            line += ["-"] * 4
        else:
            (paired,) = compare_pairs(set_name, name, rows[-1][0], pairs, max_clicks, (group,))
            for change in (paired.clicks_to[0.85], paired.first_iou):
                line += [change.change, change.verdict]
        shown.append(line)
    if shown:
        print(f"\n### {set_name}, {group}\n")
        print_table(header, shown)


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", required=True, metavar="SET", help=HINT)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    add_weights(parser)
    parser.add_argument("--plain-weights", type=Path, help="weights of a network trained without references")
    parser.add_argument("--limit", type=int, help="samples per kind and set, evenly spaced (default: all)")
    parser.add_argument("--at-least", type=int, default=0, help="repeat samples until each kind has so many")
    parser.add_argument("--max-clicks", type=int, default=20, help="clicks per sample (default: 20)")
    parser.add_argument("--development", type=float, metavar="SHARE", help="only this share of a train split")
    parser.add_argument("--runtime", choices=("torch", "openvino"), default="torch")
    parser.add_argument("--workers", type=int, default=1, help="number of processes")
    add_threads(parser, "CPU threads of all workers together")
    arguments = parser.parse_args()
    modes = {plain: [row.mode for row in ROWS if row.plain == plain] for plain in (False, True)}
    if arguments.plain_weights is None:
        both = run(arguments, arguments.weights, arguments.out / "with", [*modes[False], *modes[True]])
        records = {False: both, True: both}
    else:
        records = {
            False: run(arguments, arguments.weights, arguments.out / "with", modes[False]),
            True: run(arguments, arguments.plain_weights, arguments.out / "without", modes[True]),
        }
    plain = arguments.plain_weights or arguments.weights
    print(f"\n{machine()}; {version_name(arguments.weights)}, without references {version_name(plain)}")
    print(f"\n{RULE}")
    rows = [(row.name, [r for r in records[row.plain] if r.mode == row.mode]) for row in ROWS]
    for set_name in dict.fromkeys(record.set_name for record in records[False]):
        for group in GROUPS:
            table(set_name, group, rows, arguments.max_clicks)


if __name__ == "__main__":
    main()
