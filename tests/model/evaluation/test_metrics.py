from __future__ import annotations

import dataclasses
from typing import TypeVar

import pytest

from model.evaluation.metrics import Cell, clicks_needed, iou_after, make_cell, summarise
from model.evaluation.records import Record
from model.evaluation.standard_errors import Estimate
from tests.model.evaluation.test_records import RECORD

Key = TypeVar("Key")


def record(ious: list[float], **changes: object) -> Record:
    return dataclasses.replace(RECORD, ious=ious, seconds=[0.4, *[0.1] * (len(ious) - 1)], **changes)  # type: ignore[arg-type]


def values(estimates: dict[Key, Estimate]) -> dict[Key, float]:
    return {key: estimate.value for key, estimate in estimates.items()}


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
    means = {click: pytest.approx(iou) for click, iou in {1: 0.7, 2: 0.8, 3: 0.8, 4: 0.8, 5: 0.8}.items()}
    assert values(cell.iou_after) == means
    assert values(cell.clicks_to) == {0.8: 10.5, 0.85: 10.5, 0.9: 10.5}
    assert cell.good_first.value == 0.5
    assert cell.failed[0.9] == 1
    assert (cell.first_click_s, cell.later_click_s) == (0.4, 0.1)


def test_samples_of_a_set_without_any_reference_are_still_measured() -> None:
    cell = make_cell([record([0.6], referenced=False)], 20)
    assert (cell.count, cell.unreferenced, cell.iou_after[1].value) == (0, 1, 0.6)


def test_a_short_run_claims_nothing_about_later_clicks() -> None:
    cell = make_cell([record([0.6])], 1)
    assert values(cell.iou_after) == {1: 0.6}
    assert cell.never_falls is None


def test_figures_come_in_total_and_by_kind_for_each_set_and_mode() -> None:
    records = [
        record([0.9]),
        record([0.5], kind="pair"),
        record([0.4], mode="none"),
        record([0.3], set_name="b"),
    ]
    table = summarise(records, 20)
    assert table["cars"]["right"]["total"].iou_after[1].value == pytest.approx(0.7)
    assert list(table["cars"]["right"]) == ["total", "single", "pair"]
    assert table["cars"]["none"]["single"].iou_after[1].value == 0.4
    assert table["b"]["right"]["total"].iou_after[1].value == 0.3


def test_negative_clicks_are_summed_up_over_all_samples() -> None:
    removed = make_cell([record([0.9], removed=[1.0, 0.5]), record([0.9])], 20).removed
    assert removed is not None
    assert removed.value == 0.75
    assert make_cell([record([0.9])], 20).removed is None


def test_targets_of_one_and_of_several_pieces_are_shown_apart() -> None:
    records = [record([0.9], pieces=1), record([0.3], pieces=2), record([0.1], pieces=None)]
    cells = summarise(records, 20)["cars"]["right"]
    assert (cells["one piece"].iou_after[1].value, cells["several pieces"].iou_after[1].value) == (0.9, 0.3)


def test_a_fall_of_more_than_a_hundredth_counts() -> None:
    steady, dented = [0.5, 0.495, 0.6, 0.7, 0.8], [0.5, 0.4, 0.6, 0.7, 0.8]
    falls = make_cell([record(steady), record(dented), record([*steady, 0.1])], 20).never_falls
    assert falls is not None
    assert falls.value == pytest.approx(2 / 3)


def test_a_mask_that_is_good_before_any_click_takes_none() -> None:
    cell = make_cell([record([0.7], start_iou=0.86), record([0.82], start_iou=0.5)], 20)
    assert values(cell.clicks_to) == {0.8: 0.5, 0.85: 10, 0.9: 20}
    assert cell.failed == {0.8: 0, 0.85: 1, 0.9: 2}
    assert cell.start_iou is not None
    assert cell.start_iou.value == pytest.approx(0.68)


def test_few_masks_or_few_photographs_are_called_too_few() -> None:
    def cell(masks: int, photographs: int) -> Cell:
        return make_cell([record([0.5], image=f"{n % photographs}.png") for n in range(masks)], 20)

    assert cell(99, 50).too_few
    assert cell(150, 19).too_few
    assert not cell(100, 20).too_few


def test_the_best_candidate_is_what_a_perfect_choice_would_give() -> None:
    cell = make_cell(
        [record([0.5], candidate_ious=[0.3, 0.5, 0.9]), record([0.6], candidate_ious=[0.7, 0.6])], 20
    )
    assert cell.best_candidate is not None
    assert cell.best_candidate.value == pytest.approx(0.8)
    assert make_cell([record([0.5], candidate_ious=[0.5])], 20).best_candidate is None
