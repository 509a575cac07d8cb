"""Plots and contact sheets: that they are drawn, of what, and when not."""

from __future__ import annotations

from pathlib import Path

import cv2

from model.evaluation.metrics import summarise
from model.evaluation.modes import parse_modes
from model.evaluation.pictures import CAPTION_PX, TILE_PX, write_contact_sheet
from model.evaluation.records import Record
from model.evaluation.report import write_plots
from model.evaluation.runner import ClickLimits, EvaluationSet, Evaluator, Task
from model.evaluation.samples import enumerate_samples
from tests.support.colour_world import ColourPredictor, make_annotated_object


def run_cars(folder: Path, modes: list[str]) -> tuple[EvaluationSet, list[Record]]:
    one = EvaluationSet(
        "cars val", [make_annotated_object(folder / f"{n}.png", ["wheel", "door", "roof"]) for n in "ab"]
    )
    evaluator = Evaluator([one], ColourPredictor(), ClickLimits())
    samples, _ = enumerate_samples(one.annotated_objects)
    return one, [r for sample in samples for r in evaluator.run(Task(0, sample, tuple(parse_modes(modes))))]


def test_clicks_and_noc_are_drawn_and_figure_5_where_its_modes_were_run(tmp_path: Path) -> None:
    _, records = run_cars(tmp_path, ["right", "none", "right+polygon4", "right+scale0.5"])
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


def test_a_contact_sheet_has_two_rows_a_kind_and_five_columns(tmp_path: Path) -> None:
    one, records = run_cars(tmp_path, ["right", "none"])
    assert write_contact_sheet(tmp_path / "sheet.png", records, one)
    height, width, _ = cv2.imread(str(tmp_path / "sheet.png")).shape  # type: ignore[union-attr]
    assert (height, width) == (6 * (TILE_PX + CAPTION_PX), 5 * TILE_PX)


def test_nothing_to_compare_makes_no_contact_sheet(tmp_path: Path) -> None:
    one, records = run_cars(tmp_path, ["right"])
    assert not write_contact_sheet(tmp_path / "sheet.png", records, one)
    assert not (tmp_path / "sheet.png").exists()
