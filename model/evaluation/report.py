"""The report of an evaluation as JSON and Markdown. `model.evaluation.plots` draws its plots."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from model.evaluation.calibration import Calibration, calibrate
from model.evaluation.metrics import (
    FALL,
    GOOD_IOU,
    NOC_IOUS,
    REPORTED_CLICKS,
    Cell,
    summarise,
)
from model.evaluation.paired import NOC_RATIOS, PairedCell, compare_modes
from model.evaluation.records import Record
from model.evaluation.standard_errors import (
    MIN_MASKS,
    MIN_PHOTOGRAPHS,
    NOT_SHOWN,
    SHOWN_ERRORS,
    TOO_FEW,
    Estimate,
    Paired,
)

Table = dict[str, dict[str, dict[str, Cell]]]
"""Cells by set name, mode and group, as `model.evaluation.metrics.summarise` returns them."""
GROUP_NAMES = {"single": "part"}
"""Groups whose name in the report differs from the one in records."""
RULE = (
    "±: one standard error, clustered by photograph, because masks of one photograph are not independent. "
    f"{TOO_FEW}: fewer than {MIN_MASKS} masks or {MIN_PHOTOGRAPHS} photographs; do not quote such a row. "
    f"{NOT_SHOWN}: less than {SHOWN_ERRORS} standard errors of the difference, which is measured mask by mask."
)


@dataclasses.dataclass(frozen=True)
class Results:
    """Everything that a report shows.

    Attributes:
        max_clicks: Number of clicks after which a session ended.
        table: Metrics of each set, mode and group.
        paired: Modes compared with each other.
        calibrations: Expected against measured IoU after the first click, by set and mode; empty for a network that
            expects none.
    """

    max_clicks: int
    table: Table
    paired: list[PairedCell]
    calibrations: dict[str, dict[str, Calibration]]

    @classmethod
    def of(cls, records: Sequence[Record], max_clicks: int) -> Results:
        """Compute all figures of records."""
        calibrations: dict[str, dict[str, Calibration]] = {}
        for set_name, mode in dict.fromkeys((record.set_name, record.mode) for record in records):
            own = [r for r in records if (r.set_name, r.mode) == (set_name, mode) and r.referenced]
            found = calibrate(own, clicks=1)
            if found is not None:
                calibrations.setdefault(set_name, {})[mode] = found
        table = summarise(records, max_clicks)
        return cls(max_clicks, table, compare_modes(records, max_clicks), calibrations)


def write_results(folder: Path, results: Results) -> None:
    """Write `results.json` and `results.md`.

    Args:
        folder: Existing folder.
        results: The figures.
    """
    content = {
        "max_clicks": results.max_clicks,
        "sets": as_json(results.table),
        "paired": [as_json(cell) for cell in results.paired],
        "calibration": as_json(results.calibrations),
    }
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "results.md").write_text(as_markdown(results))


def as_markdown(results: Results) -> str:
    """Format all figures as Markdown, with the same tables for each set."""
    most = results.max_clicks
    lines = [
        f"Robot clicks, at most {most}. {RULE}",
        "",
        "n: samples whose mode had its reference, on which all else in the row is measured (+ those without one, run as "
        "clicks alone and not counted; a row with n = 0 is measured on them). Repeated samples have the next reference "
        "and clicks beside the middle of the error. IoU&0: before any click. Best of candidates: IoU of the best of the "
        "masks that the network proposes for the first click, as if it always chose that one. NoC counts "
        f"{most} where an IoU is never reached. Never falls: share of the masks whose IoU never falls by more than "
        f"{FALL} over the first {REPORTED_CLICKS[-1]} clicks. Taken away: share of the piece of excess under a negative "
        "click that is gone after it. Seconds: median per click.",
        "",
    ]
    for name, modes in results.table.items():
        rows = [(mode, group, cell) for mode, groups in modes.items() for group, cell in groups.items()]
        lines += [f"## {name}", "", *_first_click_table(rows), ""]
        lines += [*_clicks_table(rows), ""] if most > 1 else []
        paired = [cell for cell in results.paired if cell.set_name == name]
        if paired:
            lines += ["Compared mask by mask:", "", *paired_table(paired, most), ""]
        for mode, calibration in results.calibrations.get(name, {}).items():
            lines += _calibration_table(mode, calibration)
    return "\n".join(lines)


def paired_table(cells: Iterable[PairedCell], max_clicks: int) -> list[str]:
    """Format comparisons: the change of the first click's IoU and of the number of clicks, with verdicts.

    Args:
        cells: The comparisons.
        max_clicks: Number of clicks after which a session ended. With 1, numbers of clicks are left out.

    Returns:
        The lines of a Markdown table.
    """
    ratios = NOC_RATIOS if max_clicks > 1 else ()
    header = ["", "against", "targets", "n", "photographs", "IoU&1", "change", "verdict"]
    header += [f"IoU&1 >= {GOOD_IOU:g}, change", "verdict"]
    for iou in ratios:
        header += [f"NoC@{round(100 * iou)}", "ratio", "verdict"]
    rows = []
    for cell in cells:
        row = [cell.second, cell.first, _group(cell.group)]
        row += [str(cell.first_iou.masks), str(cell.first_iou.photographs)]
        row += _change(cell.first_iou) + _change(cell.good_first)[1:]
        for iou in ratios:
            row += _change(cell.clicks_to[iou])
        rows.append(row)
    return _table(header, rows)


def as_json(value: Any) -> Any:
    """Dataclasses as dictionaries of JSON values, at any depth; a paired comparison also has its verdict."""
    if isinstance(value, dict):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    if not dataclasses.is_dataclass(value):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    content = {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return content | ({"verdict": value.verdict} if isinstance(value, Paired) else {})


def file_safe(name: str) -> str:
    """Replace characters of a set's name that do not belong in a file name.

    Example:
        >>> file_safe("cars/train 2")
        'cars_train_2'
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _first_click_table(rows: Sequence[tuple[str, str, Cell]]) -> list[str]:
    header = [
        "mode",
        "targets",
        "n",
        "photographs",
        "IoU&0",
        "IoU&1",
        f"IoU&1 >= {GOOD_IOU:g}",
        "best of candidates",
        "",
    ]
    return _table(
        header,
        [
            [
                mode,
                _group(group),
                _count(cell),
                str(cell.photographs),
                _figure(cell.start_iou),
                _figure(cell.iou_after.get(1)),
                _figure(cell.good_first),
                _figure(cell.best_candidate),
                TOO_FEW if cell.too_few else "",
            ]
            for mode, group, cell in rows
        ],
    )


def _clicks_table(rows: Sequence[tuple[str, str, Cell]]) -> list[str]:
    later = REPORTED_CLICKS[1:]
    header = ["mode", "targets", "n", *(f"IoU&{click}" for click in later), "never falls"]
    header += [*(f"NoC@{round(100 * iou)}" for iou in NOC_IOUS), f"never {NOC_IOUS[-1]:.2f}", "taken away"]
    header += ["s first", "s later", ""]
    return _table(
        header,
        [
            [mode, _group(group), _count(cell)]
            + [_figure(cell.iou_after.get(click)) for click in later]
            + [_figure(cell.never_falls)]
            + [_figure(cell.clicks_to[iou], 2) for iou in NOC_IOUS]
            + [str(cell.failed[NOC_IOUS[-1]]), _figure(cell.removed, 2)]
            + [_seconds(cell.first_click_s), _seconds(cell.later_click_s)]
            + [TOO_FEW if cell.too_few else ""]
            for mode, group, cell in rows
        ],
    )


def _calibration_table(mode: str, calibration: Calibration) -> list[str]:
    few = f" ({TOO_FEW})" if calibration.masks < MIN_MASKS else ""
    rows = [
        [str(number), str(one.masks), f"{one.expected:.3f}", str(one.measured), f"{one.error:+.3f}"]
        for number, one in enumerate(calibration.bins, start=1)
    ]
    return [
        f"Expected IoU of the first mask by decile, mode {mode}: mean error {calibration.mean_error:.3f}, largest "
        f"{calibration.largest_error:.3f}, n = {calibration.masks}{few}.",
        "",
        *_table(["decile", "n", "expected IoU", "IoU", "too high by"], rows),
        "",
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)] + [
        "| " + " | ".join(row) + " |" for row in rows
    ]


def _group(name: str) -> str:
    return GROUP_NAMES.get(name, name)


def _count(cell: Cell) -> str:
    return f"{cell.count} (+ {cell.unreferenced})" if cell.unreferenced else str(cell.count)


def _change(paired: Paired) -> list[str]:
    digits = 2 if paired.neutral else 3
    return [
        f"{paired.first:.{digits}f} to {paired.second:.{digits}f}",
        paired.change.rounded(3),
        paired.verdict,
    ]


def _figure(value: Estimate | None, digits: int = 3) -> str:
    return "-" if value is None else value.rounded(digits)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
