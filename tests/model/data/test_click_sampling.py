from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

from model.data.click_sampling import BACKGROUND, BORDER, OTHERS, SLOTS, first_points

TARGET = np.zeros((60, 80), bool)
TARGET[20:40, 20:40] = True
OTHER = np.zeros((60, 80), bool)
OTHER[20:40, 50:70] = True


def drawn(count: int, target: np.ndarray = TARGET, other: np.ndarray = OTHER) -> list[np.ndarray]:
    return [first_points(target, other, default_rng(seed)) for seed in range(count)]


def places(tables: list[np.ndarray], positive: bool) -> np.ndarray:
    half = slice(0, SLOTS) if positive else slice(SLOTS, None)
    joined = np.concatenate([table[half] for table in tables])
    return joined[joined[:, 0] >= 0][:, :2].astype(int)


def test_positive_points_are_in_the_target_and_mostly_off_its_border() -> None:
    points = places(drawn(300), positive=True)
    assert TARGET[tuple(points.T)].all()
    inner = ((points >= 23) & (points < 37)).all(axis=1)
    assert inner.mean() > 0.9
    assert not inner.all()


def test_negative_points_fall_in_the_background_on_other_parts_and_round_the_target() -> None:
    points = places(drawn(600), positive=False)
    assert not TARGET[tuple(points.T)].any()
    on_other = OTHER[tuple(points.T)]
    near = ((points >= 18) & (points < 42)).all(axis=1)
    assert on_other.mean() == pytest.approx(OTHERS, abs=0.05)
    assert near.mean() == pytest.approx(BORDER, abs=0.06)
    assert (~on_other & ~near).mean() == pytest.approx(BACKGROUND, abs=0.05)


def test_there_is_always_a_positive_point_and_further_ones_become_rare() -> None:
    tables = drawn(600)
    positives = np.array([(table[:SLOTS, 0] >= 0).sum() for table in tables])
    assert positives.min() == 1
    share = [(positives == count).mean() for count in (1, 2)]
    assert share[1] / share[0] == pytest.approx(0.8, abs=0.2)
    without_negatives = np.mean([(table[SLOTS:, 0] < 0).all() for table in tables])
    assert without_negatives == pytest.approx(0.2, abs=0.05)


def test_a_target_of_one_pixel_that_fills_its_picture_gets_its_point() -> None:
    pixel = np.ones((1, 1), bool)
    for table in drawn(30, pixel, np.zeros_like(pixel)):
        assert (table[:SLOTS, 0] >= 0).any()
        assert (table[SLOTS:] == -1).all()
