"""Plots: that they are drawn, of what, and when not."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from model.evaluation.metrics import summarise
from model.evaluation.plots import FIGURE_5_AXES, figure_5, write_plots
from tests.model.evaluation.test_metrics import record
from tests.model.evaluation.test_pictures import run_cars


def test_clicks_and_noc_are_drawn_and_figure_5_where_its_modes_were_run(tmp_path: Path) -> None:
    _, records = run_cars(tmp_path, ["right", "none", "right+polygon4", "positive+scale0.5"])
    written = write_plots(tmp_path, records, summarise(records, 20), 20)
    assert [path.name for path in written] == [
        "iou_over_clicks-cars_val.png",
        "clicks_needed-cars_val.png",
        "figure_5-cars_val.png",
    ]
    assert all(cv2.imread(str(path)) is not None for path in written)


def test_without_its_modes_there_is_no_figure_5(tmp_path: Path) -> None:
    _, records = run_cars(tmp_path, ["right", "none"])
    assert len(write_plots(tmp_path, records, summarise(records, 20), 20)) == 2


@pytest.mark.parametrize(
    ("change", "axis", "plain"),
    [("polygon8", "polygon_vertices", []), ("scale0.5", "scale", [1.0]), ("refs4", "references", [1.0])],
)
def test_figure_5_has_a_curve_for_each_kind_of_reference(change: str, axis: str, plain: list[float]) -> None:
    ious = {"right": 0.8, "positive": 0.7, "negative": 0.5, "none": 0.4}
    records = [record([iou], mode=kind) for kind, iou in ious.items()]
    records += [record([iou - 0.1], mode=f"{kind}+{change}") for kind, iou in ious.items() if kind != "none"]
    records.append(record([0.1], mode=f"right+{change}+jitter"))
    totals = {mode: groups["total"] for mode, groups in summarise(records, 20)["cars"].items()}
    figure = figure_5("cars", totals)
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xlabel() == FIGURE_5_AXES[axis]
    drawn = {
        container.get_label(): container.lines[0].get_xydata().tolist()  # type: ignore[union-attr]
        for container in axes.containers
    }
    worse = float(change.lstrip("polygnscaref"))
    for label, iou in {"P + N": 0.8, "P": 0.7, "N": 0.5}.items():
        expected = sorted([(value, iou) for value in plain] + [(worse, iou - 0.1)])
        assert drawn[label] == [pytest.approx(point) for point in expected]
