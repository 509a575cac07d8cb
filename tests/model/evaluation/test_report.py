from __future__ import annotations

import json
from pathlib import Path

from model.evaluation.records import Record
from model.evaluation.report import Results, as_markdown, file_safe, write_results
from model.evaluation.standard_errors import NOT_SHOWN, TOO_FEW
from tests.model.evaluation.test_metrics import record

RECORDS = [record([0.9]), record([0.5, 0.7], referenced=False)]


def many(mode: str, iou: float, **changes: object) -> list[Record]:
    """120 masks on 40 photographs, whose IoU differs a little."""
    return [
        record(
            [iou + 0.001 * (number % 7)],
            mode=mode,
            sample=f"{number}/single/wheel",
            image=f"{number // 3}.png",
            **changes,
        )
        for number in range(120)
    ]


def test_results_are_written_for_machines_and_people(tmp_path: Path) -> None:
    results = Results.of(RECORDS, 20)
    write_results(tmp_path, results)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["max_clicks"] == 20
    assert content["sets"]["cars"]["right"]["single"]["iou_after"]["1"] == {"value": 0.9, "error": None}
    assert (tmp_path / "results.md").read_text() == as_markdown(results)


def test_every_row_has_a_value_for_every_column() -> None:
    records = [*many("right", 0.8, expected_ious=[0.7]), *many("none", 0.4)]
    tables = [block for block in as_markdown(Results.of(records, 20)).split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_samples_without_a_reference_are_shown_apart() -> None:
    assert "| right | total | 1 (+ 1) | 1 | - | 0.900 ± ? | 1.000 ± ? | - |" in as_markdown(
        Results.of(RECORDS, 20)
    )


def test_a_row_of_few_masks_says_so_and_one_of_many_does_not() -> None:
    few, enough = (as_markdown(Results.of(records, 20)) for records in (RECORDS, many("right", 0.8)))
    assert f"| {TOO_FEW} |" in few
    assert f"| {TOO_FEW} |" not in enough


def test_modes_are_compared_with_a_verdict() -> None:
    clear = as_markdown(Results.of([*many("right", 0.8), *many("none", 0.4)], 20))
    assert "| right | none | part | 120 | 40 | 0.403 to 0.803 | 0.400 ± 0.000 | better |" in clear
    equal = as_markdown(Results.of([*many("right", 0.8), *many("none", 0.8)], 20))
    assert f"| 0.000 ± 0.000 | {NOT_SHOWN} |" in equal


def test_a_run_of_one_click_reports_no_numbers_of_clicks() -> None:
    shown = as_markdown(Results.of([*many("right", 0.8), *many("none", 0.4)], 1))
    assert "better" in shown
    assert "NoC@" not in shown


def test_expected_and_measured_iou_are_compared_by_decile(tmp_path: Path) -> None:
    results = Results.of(many("right", 0.8, expected_ious=[0.9]), 20)
    assert "mean error 0.097, largest 0.097, n = 120." in as_markdown(results)
    write_results(tmp_path, results)
    deciles = json.loads((tmp_path / "results.json").read_text())["calibration"]["cars"]["right"]["bins"]
    assert [one["masks"] for one in deciles] == [12] * 10


def test_a_network_that_expects_no_iou_has_no_calibration() -> None:
    assert Results.of(many("right", 0.8), 20).calibrations == {}


def test_any_set_name_makes_a_file_name() -> None:
    assert file_safe("../my set:val") == ".._my_set_val"
