"""tests/model/data/test_click_sampling.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.random import RandomState, default_rng

from model.data.click_sampling import (
    BACKGROUND,
    BORDER,
    OTHERS,
    SLOTS,
    add_next_clicks,
    click_table,
    jittered_box,
    next_click_region,
    sample_points,
    searched_pixels,
)
from model.types import ROUND_SLOTS
from tests.support.recordings import FOLDER

TARGET = np.zeros((60, 80), bool)
TARGET[20:40, 20:40] = True
OTHER = np.zeros((60, 80), bool)
OTHER[20:40, 50:70] = True


def drawn(count: int, target: np.ndarray = TARGET, other: np.ndarray = OTHER) -> list[np.ndarray]:
    return [sample_points(target, other, default_rng(seed)) for seed in range(count)]


def positions(tables: list[np.ndarray], positive: bool) -> np.ndarray:
    half = slice(0, SLOTS) if positive else slice(SLOTS, None)
    joined = np.concatenate([table[half] for table in tables])
    return joined[joined[:, 0] >= 0][:, :2].astype(int)


def test_positive_points_are_in_the_target_and_mostly_off_its_border() -> None:
    points = positions(drawn(300), positive=True)
    assert TARGET[tuple(points.T)].all()
    inner = ((points >= 23) & (points < 37)).all(axis=1)
    assert inner.mean() > 0.9
    assert not inner.all()


def test_negative_points_fall_in_the_background_on_other_parts_and_round_the_target() -> None:
    points = positions(drawn(600), positive=False)
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


def test_next_clicks_fall_where_simpleclicks_fall() -> None:
    with np.load(FOLDER / "losses.npz") as recorded:
        wanted, guessed = recorded["gt"][:, 0] > 0.5, recorded["pred"][:, 0]
        tables = [recorded[f"next_p{number}"] for number in range(3)]
        rng = RandomState(int(recorded["next_seed"]))
    for number, guess in ((1, guessed), (2, np.zeros_like(guessed))):
        table = tables[number - 1].copy()
        slots = table.shape[1] // 2
        for sample in range(len(table)):
            positive, region = next_click_region(wanted[sample], guess[sample])
            pixels = np.argwhere(region)
            pixel = pixels[rng.randint(0, len(pixels))]
            table[sample, (1 if positive else 2) * slots - number] = [*pixel, number]
        assert np.array_equal(table, tables[number])


def test_without_an_error_there_is_no_next_click() -> None:
    target = np.zeros((20, 30), bool)
    target[5:10, 5:10] = True
    assert not next_click_region(target, target.astype(np.float32))[1].any()
    table = click_table(torch.tensor([[7.0, 7.0]]))
    before = table.clone()
    add_next_clicks(table, target[None], target[None].astype(np.float32), 1, default_rng(0))
    assert torch.equal(table, before)


def test_a_tie_is_a_negative_click() -> None:
    target, guess = np.zeros((20, 30), bool), np.zeros((20, 30), np.float32)
    target[5:10, 5:10] = True
    guess[5:10, 20:25] = 1
    positive, region = next_click_region(target, guess)
    assert not positive
    assert not (region & target).any()


def test_on_large_masks_clicks_are_searched_on_fewer_pixels_but_fall_inside_the_same_error() -> None:
    target, guess = np.zeros((1, 448, 448), bool), np.zeros((1, 448, 448), np.float32)
    target[0, 100:260, 80:300] = True
    guess[0, 100:260, 80:180] = 1
    for seed in range(20):
        table = click_table(torch.tensor([[-1.0, -1.0]]))
        add_next_clicks(table, target, guess, 1, default_rng(seed))
        row, col, order = table[0, ROUND_SLOTS - 1].tolist()
        assert order == 1
        assert (target[0] & (guess[0] < 0.5))[int(row), int(col)]
        assert (table[0, ROUND_SLOTS:] == -1).all()


def test_the_piece_that_a_click_points_at_is_the_whole_of_one_error() -> None:
    target, guess = np.zeros((2, 448, 448), bool), np.zeros((2, 448, 448), np.float32)
    target[0, 100:260, 80:300] = True
    guess[0, 100:260, 80:180] = 1  # the rest is missed
    guess[0, 300:320, 300:320] = 1  # and a smaller piece is too much
    table = click_table(torch.full((2, 2), -1.0))
    pieces = add_next_clicks(table, target, guess, 1, default_rng(0))
    every = searched_pixels(448)
    missed = np.zeros((448, 448), bool)
    missed[100:260, 180:300] = True
    assert np.array_equal(pieces[0], missed[every, every])
    assert not pieces[1].any()  # nothing was wrong


def test_a_drawn_box_is_the_tight_one_with_sides_off_by_a_twentieth() -> None:
    target = np.zeros((200, 300), bool)
    target[50:150, 60:260] = True
    boxes = np.stack([jittered_box(target, default_rng(seed)) for seed in range(400)])
    np.testing.assert_allclose(boxes.mean(axis=0), [50, 60, 149, 259], atol=1.5)
    np.testing.assert_allclose(boxes.std(axis=0), [5, 10, 5, 10], rtol=0.15)


def test_a_drawn_box_stays_in_the_crop_and_has_a_pixel() -> None:
    for target in (np.ones((20, 30), bool), np.eye(20, 30, dtype=bool) & (np.arange(30) < 1)):
        for seed in range(50):
            row_min, col_min, row_max, col_max = jittered_box(target, default_rng(seed))
            assert 0 <= row_min <= row_max < 20
            assert 0 <= col_min <= col_max < 30
