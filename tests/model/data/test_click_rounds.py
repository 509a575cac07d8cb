"""The clicks of training, against the recording of SimpleClick's."""

from __future__ import annotations

import numpy as np
import torch
from numpy.random import RandomState, default_rng

from model.data.click_sampling import ROUND_SLOTS, add_next_clicks, click_table, next_click_region
from tests.support.recordings import FOLDER


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
            places = np.argwhere(region)
            place = places[rng.randint(0, len(places))]
            table[sample, (1 if positive else 2) * slots - number] = [*place, number]
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
