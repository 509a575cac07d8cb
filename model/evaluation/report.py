"""The report of an evaluation: metrics as JSON and Markdown, and plots.

The plots show IoU over clicks, clicks needed, and the effect of worse references (Fig. 5 of the RefCut paper).
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model.evaluation.metrics import IOU_CLICKS, NOC_IOUS, Cell, iou_after
from model.evaluation.modes import Mode
from model.evaluation.records import Record

Table = dict[str, dict[str, dict[str, Cell]]]
"""Cells by set name, mode and group, as `model.evaluation.metrics.summarise` returns them."""

HEADER = (
    ["mode", "targets", "n"]
    + [f"IoU&{click}" for click in IOU_CLICKS]
    + [f"NoC@{round(100 * iou)}" for iou in NOC_IOUS]
    + ["never .90", "taken away", "s first", "s later"]
)


def write_results(folder: Path, table: Table, max_clicks: int) -> None:
    """Write `results.json` and `results.md`.

    Args:
        folder: Existing folder.
        table: The metrics.
        max_clicks: Number of clicks after which a session ended.
    """
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
    """Format the metrics as Markdown, with one table per set.

    Samples of a mode that had no reference are shown beside n as "(+ count)".
    """
    lines = [
        f"Robot clicks, at most {max_clicks}. NoC counts {max_clicks} where an IoU is never reached. n: samples whose "
        "mode had its reference, on which all else in the row is measured (+ those without one, run as clicks alone "
        "and not counted; a row with n = 0 is measured on them). Taken away: share of the excess under a negative "
        "click that is gone after it. Seconds: median per click.",
        "",
    ]
    for name, modes in table.items():
        lines += [f"## {name}", "", "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
        lines += [_row(mode, group, cell) for mode, groups in modes.items() for group, cell in groups.items()]
        lines.append("")
    return "\n".join(lines)


def file_safe(name: str) -> str:
    """Replace characters of a set's name that do not belong in a file name.

    Example:
        >>> file_safe("cars/train 2")
        'cars_train_2'
    """
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


def write_plots(folder: Path, records: Sequence[Record], table: Table, max_clicks: int) -> list[Path]:
    """Draw the plots of each set as PNG files. Fig. 5 is drawn only if its modes were run.

    Args:
        folder: Existing folder.
        records: The results.
        table: Their metrics.
        max_clicks: Number of clicks after which a session ended.

    Returns:
        The written files.
    """
    written = []
    for set_name, modes in table.items():
        totals = {mode: groups["total"] for mode, groups in modes.items()}
        drawn = {"iou_over_clicks": _iou_over_clicks(set_name, records, list(modes), max_clicks)}
        drawn["clicks_needed"] = _clicks_needed(set_name, totals)
        curves = _figure_5(set_name, totals)
        if curves is not None:
            drawn["figure_5"] = curves
        for name, figure in drawn.items():
            path = folder / f"{name}-{file_safe(set_name)}.png"
            figure.savefig(path, dpi=120)
            written.append(path)
    return written


def _iou_over_clicks(set_name: str, records: Sequence[Record], modes: list[str], max_clicks: int) -> Figure:
    """Plot the mean IoU after each click; a session that ended earlier keeps its last mask."""
    figure, (axes,) = _sheet(1, set_name)
    numbers = range(1, max_clicks + 1)
    for mode in modes:
        own = [r for r in records if (r.set_name, r.mode) == (set_name, mode)]
        own = [record for record in own if record.referenced] or own
        means = [statistics.mean(iou_after(record.ious, click) for record in own) for click in numbers]
        axes.plot(numbers, means, marker=".", label=f"{mode} (n = {len(own)})")
    axes.set(xlabel="clicks", ylabel="mean IoU", ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _clicks_needed(set_name: str, totals: dict[str, Cell]) -> Figure:
    figure, (axes,) = _sheet(1, set_name)
    width = 0.8 / len(totals)
    for number, (mode, cell) in enumerate(totals.items()):
        positions = [group + (number - (len(totals) - 1) / 2) * width for group in range(len(NOC_IOUS))]
        bars = axes.bar(
            positions, [cell.clicks_to[iou] for iou in NOC_IOUS], width, label=f"{mode} (n = {cell.count})"
        )
        if len(totals) <= 5:
            axes.bar_label(bars, fmt="%.1f", fontsize="x-small")
    axes.set_xticks(range(len(NOC_IOUS)), [f"NoC@{round(100 * iou)}" for iou in NOC_IOUS])
    axes.set_ylabel("mean number of clicks")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _figure_5(set_name: str, totals: dict[str, Cell]) -> Figure | None:
    """Plot first-click IoU over the corners of the reference's polygons and over its scale; None without such modes."""
    polygons: dict[float, float] = {}
    scales: dict[float, float] = {}
    for name, cell in totals.items():
        mode = Mode.parse(name)
        if mode == Mode(name, "right", polygon_vertices=mode.polygon_vertices) and mode.polygon_vertices:
            polygons[mode.polygon_vertices] = cell.iou_after[1]
        elif mode == Mode(name, "right", scale=mode.scale) and mode.scale < 1:
            scales[mode.scale] = cell.iou_after[1]
    if not polygons and not scales:
        return None
    figure, (left, right) = _sheet(2, set_name)
    _curve(left, polygons, "corners of a reference's polygon")
    if "right" in totals:
        scales[1.0] = totals["right"].iou_after[1]
    _curve(right, scales, "scale of the reference")
    for axes in (left, right):
        for name, style in (("right", "--"), ("none", ":")):
            if name in totals:
                axes.axhline(
                    totals[name].iou_after[1], linestyle=style, color="grey", label=f"{name}, as it is"
                )
        axes.set_ylim(0, 1)
        axes.legend(fontsize="small")
    return figure


def _curve(axes: Axes, points: dict[float, float], label: str) -> None:
    ordered = sorted(points)
    axes.plot(ordered, [points[value] for value in ordered], marker="o", label="right, made worse")
    axes.set(xlabel=label, ylabel="mean IoU after the first click")


def _sheet(columns: int, title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6.5 * columns, 4.5), layout="constrained")
    figure.suptitle(title)
    axes = [figure.add_subplot(1, columns, number + 1) for number in range(columns)]
    for one in axes:
        one.grid(alpha=0.3)
        one.set_prop_cycle(color=[colormaps["tab20"](number) for number in range(20)])
    return figure, axes
