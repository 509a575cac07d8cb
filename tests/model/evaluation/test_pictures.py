"""Contact sheets: that they are drawn, of what, and when not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from model.evaluation.modes import parse_modes
from model.evaluation.pictures import CAPTION_PX, GAP_PX, TILE_PX, worst_and_median, write_contact_sheet
from model.evaluation.records import Record
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


@pytest.mark.parametrize(("samples", "rows"), [(1, 1), (2, 1), (12, 6), (14, 7)])
def test_a_contact_sheet_has_the_worst_rows_beside_those_around_the_median(
    tmp_path: Path, samples: int, rows: int
) -> None:
    one, records = run_cars(tmp_path, ["right", "none"])
    kept = {record.sample for record in records[: 2 * samples]}
    chosen = [record for record in records if record.sample in kept]
    assert write_contact_sheet(tmp_path / "sheet.png", chosen, one)
    height, width, _ = cv2.imread(str(tmp_path / "sheet.png")).shape  # type: ignore[union-attr]
    assert (height, width) == (CAPTION_PX + rows * (TILE_PX + CAPTION_PX), 10 * TILE_PX + GAP_PX)


@pytest.mark.parametrize("count", [1, 2, 3, 11, 24, 25, 240])
def test_no_mask_is_both_worst_and_typical(count: int) -> None:
    ious = np.random.default_rng(count).random(count).tolist()
    worst, median = worst_and_median(ious, 12)
    assert not set(worst) & set(median)
    assert len(worst) == min(12, (count + 1) // 2)
    assert len(median) == min(12, count // 2)
    assert max((ious[n] for n in worst), default=0) <= min((ious[n] for n in median), default=1)
    if count == 240:
        assert np.mean([ious[n] for n in median]) == pytest.approx(np.median(ious), abs=0.01)


def test_nothing_to_compare_makes_no_contact_sheet(tmp_path: Path) -> None:
    one, records = run_cars(tmp_path, ["right"])
    assert not write_contact_sheet(tmp_path / "sheet.png", records, one)
    assert not (tmp_path / "sheet.png").exists()
