from __future__ import annotations

import pytest

from model.evaluation.paired import compare_modes, compare_results
from model.evaluation.records import Record
from model.evaluation.standard_errors import NOT_SHOWN
from tests.model.evaluation.test_metrics import record
from tests.model.evaluation.test_report import many


def test_modes_are_compared_on_the_samples_that_both_have() -> None:
    records = [
        record([0.9], sample="0/single/a"),
        record([0.5], sample="1/single/a"),
        record([0.1], sample="2/single/a", referenced=False),
        record([0.8], sample="3/single/a"),
        record([0.6], sample="0/single/a", mode="none"),
        record([0.1], sample="2/single/a", mode="none"),
        record([0.1], sample="3/single/a", mode="none", referenced=False),
    ]
    total = compare_modes(records, 20)[0]
    assert (total.first, total.second, total.group) == ("none", "right", "total")
    assert (total.first_iou.masks, total.first_iou.change.value) == (1, pytest.approx(0.3))


def test_every_mode_is_compared_with_clicks_alone_and_with_the_right_reference() -> None:
    names = ["right", "none", "wrong", "right+refs2", "right+jitter", "none+jitter", "right+scale0.5"]
    cells = compare_modes([one for name in names for one in many(name, 0.5)], 20)
    assert {(cell.second, cell.first) for cell in cells} == {
        ("right", "none"),
        ("wrong", "none"),
        ("wrong", "right"),
        ("right+refs2", "none"),
        ("right+refs2", "right"),
        ("right+jitter", "none+jitter"),
        ("right+scale0.5", "none"),
        ("right+scale0.5", "right"),
    }
    assert {cell.group for cell in cells if cell.second == "right+scale0.5"} == {"total"}
    assert {cell.group for cell in cells if cell.second == "wrong"} == {"total", "single"}


def test_the_ratio_of_clicks_counts_a_target_never_reached_as_the_most_clicks() -> None:
    first = [
        record([0.5, 0.9], sample="0/single/a", mode="none"),
        record([0.5], sample="1/single/a", mode="none"),
    ]
    second = [record([0.9], sample="0/single/a"), record([0.9], sample="1/single/a")]
    (cell,) = [cell for cell in compare_modes([*first, *second], 20) if cell.group == "total"]
    ratio = cell.clicks_to[0.85]
    assert (ratio.first, ratio.second, ratio.change.value) == (11, 1, pytest.approx(1 / 11))


def test_two_networks_are_compared_mode_by_mode() -> None:
    def run(right: float, none: float) -> list[Record]:
        return [*many("right", right), *many("none", none)]

    found = compare_results(run(0.5, 0.4), [*run(0.6, 0.4), *many("wrong", 0.1)], 20)
    assert {mode: cells[0].first_iou.verdict for mode, cells in found.items()} == {
        "right": "better",
        "none": NOT_SHOWN,
    }
