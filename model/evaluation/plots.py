"""The plots of an evaluation: IoU over clicks, clicks needed, and worse references (Fig. 5 of the RefCut paper)."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model.evaluation.metrics import NOC_IOUS, Cell, iou_after, measured
from model.evaluation.modes import Mode
from model.evaluation.records import Record
from model.evaluation.report import Table, file_safe


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
        curves = figure_5(set_name, totals)
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
        own = measured(own)
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
            positions,
            [cell.clicks_to[iou].value for iou in NOC_IOUS],
            width,
            label=f"{mode} (n = {cell.count})",
        )
        if len(totals) <= 5:
            axes.bar_label(bars, fmt="%.1f", fontsize="x-small")
    axes.set_xticks(range(len(NOC_IOUS)), [f"NoC@{round(100 * iou)}" for iou in NOC_IOUS])
    axes.set_ylabel("mean number of clicks")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


FIGURE_5_CURVES = {"right": "P + N", "positive": "P", "negative": "N"}
"""Kinds of references with their names in the paper: both masks, only the positive, only the negative one."""
FIGURE_5_AXES = {
    "polygon_vertices": "corners of a reference's polygon",
    "scale": "scale of the reference",
    "references": "number of references",
}
"""What a panel varies: a field of `Mode`, and its name on the axis."""


def figure_5(set_name: str, totals: dict[str, Cell]) -> Figure | None:
    """Plot the first click's IoU over the quality and number of references, one curve for each kind of reference.

    Args:
        set_name: The title.
        totals: Metrics of all targets, by mode.

    Returns:
        None without a mode that varies quality or number.
    """
    modes = [Mode.parse(name) for name in totals]
    plain = Mode("", "right")
    panels = [
        field for field in FIGURE_5_AXES if any(getattr(m, field) != getattr(plain, field) for m in modes)
    ]
    if not panels:
        return None
    figure, sheet = _sheet(len(panels), set_name)
    for axes, field in zip(sheet, panels, strict=True):
        for kind, label in FIGURE_5_CURVES.items():
            points = _curve(kind, field, modes, totals)
            if points:
                values, ious, errors = zip(*points, strict=True)
                axes.errorbar(values, ious, errors, marker="o", capsize=3, label=label)
        for name, style in (("right", "--"), ("none", ":")):
            if name in totals:
                height = totals[name].iou_after[1].value
                axes.axhline(height, linestyle=style, color="grey", label=f"{name}, as it is")
        axes.set(xlabel=FIGURE_5_AXES[field], ylabel="mean IoU after the first click", ylim=(0, 1))
        axes.legend(fontsize="small")
    return figure


def _curve(
    kind: str, field: str, modes: Sequence[Mode], totals: dict[str, Cell]
) -> list[tuple[float, float, float]]:
    """(value, IoU, standard error) of the modes of a kind that differ from the plain mode in `field` only, by value."""
    points = []
    for mode in modes:
        value = getattr(mode, field)
        only = dataclasses.replace(Mode(mode.name, kind), **{field: value})  # type: ignore[arg-type]
        if value is not None and mode == only:
            iou = totals[mode.name].iou_after[1]
            points.append((float(value), iou.value, iou.error or 0.0))
    return sorted(points)


def _sheet(columns: int, title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6.5 * columns, 4.5), layout="constrained")
    figure.suptitle(title)
    axes = [figure.add_subplot(1, columns, number + 1) for number in range(columns)]
    for one in axes:
        one.grid(alpha=0.3)
        one.set_prop_cycle(color=[colormaps["tab20"](number) for number in range(20)])
    return figure, axes
