"""The robot clicker against recordings of SimpleClick's own (tests/fixtures/simpleclick)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluation.metrics import clicks_needed
from model.evaluation.robot_annotator import RobotClicker
from model.masks import connected, deepest_point, intersection_over_union
from model.types import Click

RECORDINGS = Path(__file__).parents[2] / "fixtures" / "simpleclick"
RUNS: dict[str, Any] = json.loads((RECORDINGS / "clicker_runs.json").read_text())
MASKS: dict[str, NDArray[np.int8]] = dict(np.load(RECORDINGS / "clicker_masks.npz"))
RUN_KEYS = sorted(key for key in RUNS if not key.startswith("__"))
MAX_CLICKS = 20


def paint(probability_hw: NDArray[np.float64], click: Click, number: int, start_radius: int) -> None:
    """The recordings' stand-in for a network: a disk round each click, smaller with each."""
    rows, cols = np.ogrid[: probability_hw.shape[0], : probability_hw.shape[1]]
    radius = max(3, start_radius - 4 * number)
    disk = (rows - int(click.row)) ** 2 + (cols - int(click.col)) ** 2 <= radius**2
    probability_hw[disk] = 0.9 if click.positive else 0.1


def run(key: str) -> tuple[list[list[int]], list[float]]:
    """Clicks as [row, column, positive, number] and IoUs of one recorded run, done again."""
    name, radius, threshold = key.split("|")
    labels_hw = MASKS[name]
    target_hw, valid_hw = labels_hw == 1, labels_hw != -1
    robot = RobotClicker(target_hw, ~valid_hw)
    probability_hw = np.zeros(labels_hw.shape)
    clicks: list[list[int]] = []
    ious: list[float] = []
    while len(clicks) < MAX_CLICKS and not (ious and ious[-1] >= float(threshold.removeprefix("thr"))):
        click = robot.next_click(probability_hw > 0.49)
        paint(probability_hw, click, len(clicks), int(radius.removeprefix("r")))
        clicks.append([int(click.row), int(click.col), int(click.positive), len(clicks)])
        ious.append(intersection_over_union(target_hw, (probability_hw > 0.49) & valid_hw))
    return clicks, ious


@pytest.mark.parametrize("key", RUN_KEYS)
def test_clicks_and_ious_are_those_of_simpleclick(key: str) -> None:
    clicks, ious = run(key)
    assert clicks == RUNS[key]["clicks"]
    np.testing.assert_array_equal(np.float32(ious), np.float32(RUNS[key]["ious"]))


def test_numbers_of_clicks_are_those_of_simpleclick() -> None:
    recorded = RUNS["__noc__"]
    for place, threshold in enumerate(recorded["thrs"]):
        needed = [clicks_needed(run(key)[1], threshold, MAX_CLICKS) for key in recorded["order"]]
        assert np.mean(needed) == pytest.approx(recorded["noc"][place], abs=1e-12)
        assert needed.count(MAX_CLICKS) == recorded["over_max"][place]


def test_first_click_is_positive_and_in_the_deepest_place() -> None:
    target_hw = np.zeros((40, 60), bool)
    target_hw[10:21, 20:41] = True
    click = RobotClicker(target_hw).next_click(np.zeros_like(target_hw))
    assert (click.row, click.col) == deepest_point(target_hw) == (15, 25)
    assert click.positive


def test_as_deep_an_excess_as_miss_is_clicked_away_first() -> None:
    target_hw, mask_hw = np.zeros((2, 30, 60), bool)
    target_hw[10:20, 5:15] = True
    mask_hw[10:20, 35:45] = True
    assert not RobotClicker(target_hw).next_click(mask_hw).positive


def test_no_pixel_is_clicked_twice() -> None:
    target_hw = np.zeros((9, 9), bool)
    target_hw[3:6, 3:6] = True
    robot = RobotClicker(target_hw)
    clicks = [robot.next_click(np.zeros_like(target_hw)) for _ in range(9)]
    assert len({(click.row, click.col) for click in clicks}) == 9


def test_two_empty_masks_agree_fully() -> None:
    assert intersection_over_union(np.zeros((4, 4), bool), np.zeros((4, 4), bool)) == 1.0


@pytest.mark.parametrize(("gap", "touching"), [(0, True), (1, False)])
def test_parts_are_connected_over_a_corner_but_not_over_a_gap(gap: int, touching: bool) -> None:
    first_hw, second_hw = np.zeros((2, 12, 12), bool)
    first_hw[:4, :4] = True
    second_hw[4 + gap :, 4 + gap :] = True
    assert connected(first_hw, second_hw) is touching
