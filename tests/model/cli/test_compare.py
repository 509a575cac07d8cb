"""`python -m model compare` on the results of two evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.cli.compare import main
from model.evaluation.records import Record, RecordFile
from model.evaluation.standard_errors import NOT_SHOWN, TOO_FEW
from tests.model.evaluation.test_report import many

SETTINGS = {"clicks": {"max_clicks": 20, "min_clicks": 5}, "development": None}


def results(folder: Path, records: list[Record], **settings: object) -> str:
    RecordFile(folder, SETTINGS | {"weights": folder.name} | settings).append(records)
    return str(folder)


def test_two_results_are_compared_with_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = results(tmp_path / "before", [*many("right", 0.6), *many("none", 0.4), *many("wrong", 0.2)[:50]])
    after = results(tmp_path / "after", [*many("right", 0.7), *many("none", 0.4), *many("wrong", 0.3)[:50]])
    main([before, after, "--out", str(tmp_path / "figures.json")])
    shown = capsys.readouterr().out
    assert "first: before" in shown
    content = json.loads((tmp_path / "figures.json").read_text())
    verdicts = {mode: cells[0]["first_iou"]["verdict"] for mode, cells in content["modes"].items()}
    assert verdicts == {"right": "better", "none": NOT_SHOWN, "wrong": TOO_FEW}
    assert content["modes"]["right"][0]["first_iou"]["change"]["value"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("settings", "mode", "message"),
    [
        ({"development": 0.05}, "right", "differ in 'development'"),
        ({"clicks": {"max_clicks": 1, "min_clicks": 1}}, "right", "differ in 'clicks'"),
        ({}, "none", "no sample and mode in common"),
    ],
)
def test_results_of_other_work_are_not_compared(
    tmp_path: Path, settings: dict[str, object], mode: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(tmp_path / "before", many("right", 0.6))
    after = results(tmp_path / "after", many(mode, 0.6), **settings)
    with pytest.raises(SystemExit) as ended:
        main([before, after])
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("count", [1, 4])
def test_another_number_of_paths_is_refused(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["folder"] * count)
    assert "two folders of results, or a snapshot and two versions" in capsys.readouterr().err


def test_a_folder_without_results_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = results(tmp_path / "before", many("right", 0.6))
    with pytest.raises(SystemExit):
        main([before, str(tmp_path)])
    assert "settings.json cannot be read" in capsys.readouterr().err
