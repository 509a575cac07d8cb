from __future__ import annotations

import json
from pathlib import Path

from model.evaluation.metrics import summarise
from model.evaluation.report import as_markdown, file_safe, write_results
from tests.model.evaluation.test_metrics import record

TABLE = summarise([record([0.9]), record([0.5, 0.7], referenced=False)], 20)


def test_results_are_written_for_machines_and_people(tmp_path: Path) -> None:
    write_results(tmp_path, TABLE, 20)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["max_clicks"] == 20
    assert content["sets"]["cars"]["right"]["single"]["iou_after"]["1"] == 0.9
    assert (tmp_path / "results.md").read_text() == as_markdown(TABLE, 20)


def test_every_row_has_a_value_for_every_column() -> None:
    lines = [line for line in as_markdown(TABLE, 20).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


def test_samples_without_a_reference_are_shown_apart() -> None:
    assert "| right | total | 1 (+ 1) | 0.900 |" in as_markdown(TABLE, 20)


def test_any_set_name_makes_a_file_name() -> None:
    assert file_safe("../my set:val") == ".._my_set_val"
