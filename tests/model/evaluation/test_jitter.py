from __future__ import annotations

import numpy as np

from model.evaluation.robot_annotator import RobotClicker, UnsteadyClicker
from model.types import Click


def target() -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask_hw = np.zeros((60, 60), bool)
    mask_hw[10:40, 20:50] = True
    return mask_hw


def clicks_of(seed: int) -> list[Click]:
    robot = UnsteadyClicker(target(), np.random.default_rng(seed))
    return [robot.next_click(np.zeros((60, 60), bool)) for _ in range(30)]


def test_unsteady_clicks_miss_the_middle_but_not_the_error() -> None:
    clicks = clicks_of(0)
    steady = RobotClicker(target()).next_click(np.zeros((60, 60), bool))
    assert all(target()[int(click.row), int(click.col)] and click.positive for click in clicks)
    assert sum((click.row, click.col) != (steady.row, steady.col) for click in clicks) > 20


def test_an_unsteady_hand_is_the_same_in_every_run() -> None:
    assert clicks_of(3) == clicks_of(3) != clicks_of(4)


def test_an_unsteady_hand_clicks_no_pixel_twice() -> None:
    assert len({(click.row, click.col) for click in clicks_of(1)}) == 30


def test_an_error_of_one_pixel_is_hit() -> None:
    mask_hw = np.zeros((60, 60), bool)
    mask_hw[5, 5] = True
    click = UnsteadyClicker(mask_hw, np.random.default_rng(0)).next_click(np.zeros_like(mask_hw))
    assert click == Click(5.0, 5.0, True)
