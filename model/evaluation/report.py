"""Figures as files: `results.json` for machines, `results.md` for people."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

from model.evaluation.summary import IOU_CLICKS, NOC_IOUS, Cell

Table = dict[str, dict[str, dict[str, Cell]]]

HEADER = (
    ["mode", "targets", "n"]
    + [f"IoU&{click}" for click in IOU_CLICKS]
    + [f"NoC@{round(100 * iou)}" for iou in NOC_IOUS]
    + ["never .90", "taken away", "s first", "s later"]
)


def write_results(folder: Path, table: Table, max_clicks: int) -> None:
    """Writes both files; the table is `model.evaluation.summary.summarise`'s."""
    cells = {
        name: {
            mode: {group: dataclasses.asdict(cell) for group, cell in groups.items()}
            for mode, groups in modes.items()
        }
        for name, modes in table.items()
    }
    content = {"max_clicks": max_clicks, "sets": cells}
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "results.md").write_text(as_markdown(table, max_clicks))


def as_markdown(table: Table, max_clicks: int) -> str:
    """One table a set; a mode's samples without a reference stand beside n as "(+ so many)"."""
    lines = [
        f"Robot clicks, at most {max_clicks}. NoC counts {max_clicks} where an IoU is never reached. n: samples whose "
        "mode had its reference, on which all else in the row is measured (+ those without one, run as clicks alone "
        "and not counted; a row with n = 0 is measured on them). Taken away: share of the excess under a negative "
        "click that is gone after it. Seconds: median a click.",
        "",
    ]
    for name, modes in table.items():
        lines += [f"## {name}", "", "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
        lines += [_row(mode, group, cell) for mode, groups in modes.items() for group, cell in groups.items()]
        lines.append("")
    return "\n".join(lines)


def file_safe(name: str) -> str:
    """A set's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _row(mode: str, group: str, cell: Cell) -> str:
    count = f"{cell.count} (+ {cell.unreferenced})" if cell.unreferenced else str(cell.count)
    values = [mode, group, count]
    values += [_figure(cell.iou_after.get(click), 3) for click in IOU_CLICKS]
    values += [_figure(cell.clicks_to[iou], 2) for iou in NOC_IOUS]
    values += [str(cell.failed[NOC_IOUS[-1]]), _figure(cell.removed, 2)]
    values += [_figure(cell.first_click_s, 3), _figure(cell.later_click_s, 3)]
    return "| " + " | ".join(values) + " |"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
