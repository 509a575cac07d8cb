"""The robot clicker against recordings of SimpleClick's own (tests/fixtures/simpleclick)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluation.metrics import clicks_needed
from model.evaluation.robot_annotator import Clicker, JitteredClicker, Session, annotate, removed_share
from model.masks import connected, deepest_point, intersection_over_union, union
from model.types import Box, Click, MaskResult
from tests.support.colour_world import ColourPredictor, make_annotated_object

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
    clicker = Clicker(target_hw, ~valid_hw)
    probability_hw = np.zeros(labels_hw.shape)
    clicks: list[list[int]] = []
    ious: list[float] = []
    while len(clicks) < MAX_CLICKS and not (ious and ious[-1] >= float(threshold.removeprefix("thr"))):
        click = clicker.next_click(probability_hw > 0.49)
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
    for number, threshold in enumerate(recorded["thrs"]):
        needed = [clicks_needed(run(key)[1], threshold, MAX_CLICKS) for key in recorded["order"]]
        assert np.mean(needed) == pytest.approx(recorded["noc"][number], abs=1e-12)
        assert needed.count(MAX_CLICKS) == recorded["over_max"][number]


def test_first_click_is_positive_and_in_the_deepest_place() -> None:
    target_hw = np.zeros((40, 60), bool)
    target_hw[10:21, 20:41] = True
    click = Clicker(target_hw).next_click(np.zeros_like(target_hw))
    assert (click.row, click.col) == deepest_point(target_hw) == (15, 25)
    assert click.positive


def test_as_deep_an_excess_as_miss_is_clicked_away_first() -> None:
    target_hw, mask_hw = np.zeros((2, 30, 60), bool)
    target_hw[10:20, 5:15] = True
    mask_hw[10:20, 35:45] = True
    assert not Clicker(target_hw).next_click(mask_hw).positive


def test_no_pixel_is_clicked_twice() -> None:
    target_hw = np.zeros((9, 9), bool)
    target_hw[3:6, 3:6] = True
    clicker = Clicker(target_hw)
    clicks = [clicker.next_click(np.zeros_like(target_hw)) for _ in range(9)]
    assert len({(click.row, click.col) for click in clicks}) == 9


def test_two_empty_masks_agree_fully() -> None:
    assert intersection_over_union(np.zeros((4, 4), bool), np.zeros((4, 4), bool)) == 1.0


@pytest.mark.parametrize(("gap", "touching"), [(0, True), (1, False)])
def test_parts_are_connected_over_a_corner_but_not_over_a_gap(gap: int, touching: bool) -> None:
    first_hw, second_hw = np.zeros((2, 12, 12), bool)
    first_hw[:4, :4] = True
    second_hw[4 + gap :, 4 + gap :] = True
    assert connected(first_hw, second_hw) is touching


def target() -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask_hw = np.zeros((60, 60), bool)
    mask_hw[10:40, 20:50] = True
    return mask_hw


def clicks_of(seed: int) -> list[Click]:
    clicker = JitteredClicker(target(), np.random.default_rng(seed))
    return [clicker.next_click(np.zeros((60, 60), bool)) for _ in range(30)]


def test_unsteady_clicks_miss_the_middle_but_not_the_error() -> None:
    clicks = clicks_of(0)
    steady = Clicker(target()).next_click(np.zeros((60, 60), bool))
    assert all(target()[int(click.row), int(click.col)] and click.positive for click in clicks)
    assert sum((click.row, click.col) != (steady.row, steady.col) for click in clicks) > 20


def test_an_unsteady_hand_is_the_same_in_every_run() -> None:
    assert clicks_of(3) == clicks_of(3) != clicks_of(4)


def test_an_unsteady_hand_clicks_no_pixel_twice() -> None:
    assert len({(click.row, click.col) for click in clicks_of(1)}) == 30


def test_an_error_of_one_pixel_is_hit() -> None:
    mask_hw = np.zeros((60, 60), bool)
    mask_hw[5, 5] = True
    click = JitteredClicker(mask_hw, np.random.default_rng(0)).next_click(np.zeros_like(mask_hw))
    assert click == Click(5.0, 5.0, True)


def session_of(folder: Path, parts: Sequence[str], *, max_clicks: int = 20, min_clicks: int = 1) -> Session:
    annotated_object = make_annotated_object(folder / "a.png", ["wheel", "door", "roof", "mirror"])
    predictor = ColourPredictor()
    predictor.set_image(annotated_object.image())
    target_hw = union(annotated_object.masks()[name] for name in parts)
    return annotate(predictor, target_hw, Clicker(target_hw), max_clicks=max_clicks, min_clicks=min_clicks)


def test_the_robot_stops_when_the_mask_is_good(tmp_path: Path) -> None:
    session = session_of(tmp_path, ["wheel", "door", "mirror"])
    assert len(session.clicks) == len(session.ious) == len(session.seconds) == 3
    assert session.ious[-1] == 1
    assert session.ious == sorted(session.ious)


def test_a_session_has_at_least_the_fewest_and_at_most_the_most_clicks(tmp_path: Path) -> None:
    assert len(session_of(tmp_path, ["wheel"], min_clicks=3).clicks) == 3
    assert len(session_of(tmp_path, ["wheel", "door", "mirror"], max_clicks=2).clicks) == 2


def test_the_first_mask_is_recorded(tmp_path: Path) -> None:
    session = session_of(tmp_path, ["wheel", "door", "mirror"])
    assert session.first_mask_hw.sum() == 100


class Stubborn(ColourPredictor):
    """Answers with the whole picture at first, then with its left half."""

    def predict(self, clicks: Sequence[Click]) -> MaskResult:
        mask_hw: NDArray[np.bool_] = np.ones((40, 40), bool)
        if len(clicks) > 1:
            mask_hw[:, 20:] = False
        return MaskResult(mask_hw, mask_hw.astype(np.float32), Box.whole(40, 40))


def test_what_a_negative_click_took_away_is_noted() -> None:
    target_hw = np.zeros((40, 40), bool)
    target_hw[:, :10] = True
    session = annotate(Stubborn(), target_hw, Clicker(target_hw), max_clicks=2, min_clicks=1)
    assert [click.positive for click in session.clicks] == [True, False]
    assert session.removed == [pytest.approx(2 / 3)]


def test_a_negative_click_on_a_clean_mask_counts_by_its_own_pixel() -> None:
    clean_hw, after_hw = np.zeros((2, 5, 5), bool)
    after_hw[0, 0] = True
    assert removed_share(Click(2, 2, False), clean_hw, after_hw) == 1
    assert removed_share(Click(0, 0, False), clean_hw, after_hw) == 0


class Estimating(ColourPredictor):
    """Expects less of its masks with each click, and proposes a smaller and a larger mask for the first."""

    def predict(self, clicks: Sequence[Click]) -> MaskResult:
        result = super().predict(clicks)
        nothing, everything = np.zeros_like(result.mask_hw), np.ones_like(result.mask_hw)
        candidates = [
            dataclasses.replace(result, mask_hw=mask) for mask in (nothing, result.mask_hw, everything)
        ]
        expected = 1 - len(clicks) / 10
        return dataclasses.replace(result, expected_iou=expected, candidates=candidates)


def test_what_a_network_expects_and_proposes_is_measured(tmp_path: Path) -> None:
    annotated_object = make_annotated_object(tmp_path / "car.png", ["wheel", "door"])
    predictor, target_hw = Estimating(), annotated_object.masks()["wheel"]
    predictor.set_image(annotated_object.image())
    session = annotate(predictor, target_hw, Clicker(target_hw), max_clicks=20, min_clicks=3)
    assert session.expected_ious == [0.9, 0.8, 0.7]
    assert session.candidate_ious == [0, 1, pytest.approx(target_hw.mean())]


def test_a_session_that_begins_with_a_mask_clicks_on_its_errors(tmp_path: Path) -> None:
    annotated_object = make_annotated_object(tmp_path / "car.png", ["wheel", "door"])
    masks = annotated_object.masks()
    predictor, start_hw = ColourPredictor(), union(masks.values())
    predictor.set_image(annotated_object.image())
    predictor.start_from(MaskResult(start_hw, start_hw.astype(np.float32), Box.whole(*start_hw.shape)))
    clicker = Clicker(masks["wheel"])
    session = annotate(predictor, masks["wheel"], clicker, max_clicks=20, min_clicks=1, start_hw=start_hw)
    assert session.start_iou == 0.5
    assert masks["door"][int(session.clicks[0].row), int(session.clicks[0].col)]
    assert (session.clicks[0].positive, session.ious, session.removed) == (False, [1], [1])
