from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from model.memory import nbytes


@dataclass(frozen=True)
class Pair:
    left: torch.Tensor
    right: object


def test_arrays_and_tensors_are_counted_wherever_they_are():
    pair = Pair(torch.zeros(10), {"mask": np.zeros(5, np.uint8), "name": "x"})
    assert nbytes(pair, [torch.zeros(3, dtype=torch.float64)], None, 7) == 40 + 5 + 24


def test_a_view_counts_as_what_it_keeps_alive():
    assert nbytes(torch.zeros(100)[:1]) == 400
    assert nbytes(np.zeros((10, 10), np.uint8)[2:4, 3:]) == 100


def test_what_is_shared_counts_once():
    tensor, array = torch.zeros(100), np.zeros(100, np.uint8)
    assert nbytes(tensor, Pair(tensor[:5], (array, array[1:]))) == 500


@dataclass(frozen=True)
class Lazy:
    side: int

    @cached_property
    def square(self) -> np.ndarray:
        return np.zeros((self.side, self.side), np.uint8)


def test_a_cached_property_counts_once_it_is_computed():
    lazy = Lazy(10)
    assert nbytes(lazy) == 0
    assert lazy.square.shape == (10, 10)
    assert nbytes([lazy]) == 100
