from __future__ import annotations

import dataclasses

import pytest

from model.evaluation.metrics import clicks_needed, iou_after, make_cell, summarise
from model.evaluation.records import Record
from tests.model.evaluation.test_records import RECORD


def record(ious: list[float], **changes: object) -> Record:
    return dataclasses.replace(RECORD, ious=ious, seconds=[0.4, *[0.1] * (len(ious) - 1)], **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ious", "needed"), [([0.9], 1), ([0.5, 0.85], 2), ([0.5] * 20, 20), ([0.9, 0.1], 1), ([0.8, 0.8499], 20)]
)
def test_a_target_never_reached_counts_as_the_most_clicks(ious: list[float], needed: int) -> None:
    assert clicks_needed(ious, 0.85, 20) == needed


def test_a_session_that_ended_keeps_its_last_iou() -> None:
    assert [iou_after([0.5, 0.95], click) for click in (1, 2, 5)] == [0.5, 0.95, 0.95]


def test_means_are_over_the_samples_that_had_a_reference() -> None:
    cell = make_cell([record([0.9]), record([0.5, 0.7]), record([0.0], referenced=False)], 20)
    assert (cell.count, cell.unreferenced) == (2, 1)
    assert cell.iou_after == {1: pytest.approx(0.7), 3: pytest.approx(0.8), 5: pytest.approx(0.8)}
    assert cell.clicks_to == {0.8: 10.5, 0.85: 10.5, 0.9: 10.5}
    assert cell.failed[0.9] == 1
    assert (cell.first_click_s, cell.later_click_s) == (0.4, 0.1)


def test_samples_of_a_set_without_any_reference_are_still_measured() -> None:
    cell = make_cell([record([0.6], referenced=False)], 20)
    assert (cell.count, cell.unreferenced, cell.iou_after[1]) == (0, 1, 0.6)


def test_a_short_run_claims_nothing_about_later_clicks() -> None:
    assert make_cell([record([0.6])], 1).iou_after == {1: 0.6}


def test_figures_come_in_total_and_by_kind_for_each_set_and_mode() -> None:
    records = [
        record([0.9]),
        record([0.5], kind="pair"),
        record([0.4], mode="none"),
        record([0.3], set_name="b"),
    ]
    table = summarise(records, 20)
    assert table["cars"]["right"]["total"].iou_after[1] == pytest.approx(0.7)
    assert list(table["cars"]["right"]) == ["total", "single", "pair"]
    assert table["cars"]["none"]["single"].iou_after[1] == 0.4
    assert table["b"]["right"]["total"].iou_after[1] == 0.3


def test_negative_clicks_are_summed_up_over_all_samples() -> None:
    assert make_cell([record([0.9], removed=[1.0, 0.5]), record([0.9])], 20).removed == 0.75
    assert make_cell([record([0.9])], 20).removed is None
