from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from model.errors import DataError
from model.evaluation.records import Record, RecordFile

RECORD = Record(
    set_name="cars",
    sample="0/single/wheel",
    kind="single",
    mode="right",
    image="a.png",
    references=["b.png"],
    referenced=True,
    clicks=[[1.0, 2.0, 1.0]],
    ious=[0.5],
    seconds=[0.1],
    removed=[],
    first_mask={"size": [2, 2], "counts": "4"},
)
OTHER = dataclasses.replace(RECORD, mode="none")


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    RecordFile(tmp_path / "new", {"clicks": 20}).append([RECORD, OTHER])
    assert RecordFile(tmp_path / "new", {"clicks": 20}).read() == [RECORD, OTHER]


def test_half_a_line_of_a_killed_run_is_cut_off(tmp_path: Path) -> None:
    file = RecordFile(tmp_path, {})
    file.append([RECORD, OTHER])
    file.path.write_bytes(file.path.read_bytes()[:-20])
    again = RecordFile(tmp_path, {})
    again.append([OTHER])
    assert again.read() == [RECORD, OTHER]


def test_results_of_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    RecordFile(tmp_path, {"network_px": 336})
    with pytest.raises(DataError, match="other settings"):
        RecordFile(tmp_path, {"network_px": 448})
