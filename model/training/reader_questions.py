"""Masks and clicks of the reader's training, on the grid of patches.

`model.data.target_sampling` chooses what is asked of a crop; `answer` turns a question into what the reader is given and
what it must find.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from model.data.target_sampling import CropParts, Question, Shares, grown, pick

DISK_RADIUS = 5.0 / 14.0
"""Radius of a click's disk in patches, as `model.network.click_maps` draws it on patches of 14 px."""


def answer(
    here: CropParts, there: Sequence[CropParts], question: Question, grid: int, rng: Generator
) -> tuple[Shares, Shares, Shares, Shares]:
    """Positive and negative shares of the references (R * N,), clicks (2, N), target (N,)."""
    target = here.union(question.pieces)
    positive = [photo.union(meant) for photo, meant in zip(there, question.meant, strict=True)]
    negative = []
    choice = rng.random()
    for photo, kept, inside in zip(there, question.open, positive, strict=True):
        others = [piece for piece in range(len(photo.names)) if piece not in kept]
        if choice < 0.15:
            others = []
        elif choice < 0.35 and len(others) > 1:
            others = list(rng.choice(others, int(rng.integers(1, len(others))), replace=False))
        shares = photo.union(others) if others else np.zeros_like(inside)
        negative.append(np.minimum(shares, 1 - inside))
    clicked = question.needs_click or rng.random() < 0.6
    if clicked and choice > 0.96 and any(part.any() for part in negative):
        positive = [np.zeros_like(part) for part in positive]
    clicks = _clicks(here, question, target, grid, rng) if clicked else np.zeros((2, grid * grid), np.float32)
    return np.concatenate(positive), np.concatenate(negative), clicks, target


def _clicks(here: CropParts, question: Question, target: Shares, grid: int, rng: Generator) -> Shares:
    """Mostly one positive click; now and then up to three, and up to two negative ones."""
    maps = np.zeros((2, grid * grid), np.float32)
    inside = here.union(question.click_on) * (target > 0)
    _add_click(maps[0], inside, grid, rng)
    for _ in range(int(rng.choice(3, p=(0.75, 0.17, 0.08)))):
        _add_click(maps[0], target, grid, rng)
    for _ in range(int(rng.choice(3, p=(0.72, 0.19, 0.09)))):
        outside = [number for number in range(len(here.names)) if number not in question.pieces]
        wrong = here.union([pick(outside, rng)]) if outside and rng.random() < 0.7 else _near(target, grid)
        wrong = wrong * (target < 0.1)
        if wrong.max() > 0.3:
            _add_click(maps[1], wrong, grid, rng)
    return np.minimum(maps, 1)


def _add_click(clicks: Shares, shares: Shares, grid: int, rng: Generator) -> None:
    """Adds the disk of a click on a patch that is well inside; more often near the middle than near the border."""
    side = np.pad(shares.reshape(grid, grid), 1)
    depth = 2 * side[1:-1, 1:-1] + side[:-2, 1:-1] + side[2:, 1:-1] + side[1:-1, :-2] + side[1:-1, 2:]
    weights = depth.reshape(-1) * (shares > 0.5 * shares.max())
    weights = weights ** (3.0 if rng.random() < 0.6 else 0.5) * (weights > 0)
    if weights.sum() <= 0:
        return
    patch = int(rng.choice(grid * grid, p=weights / weights.sum()))
    row, col = patch // grid + rng.random(), patch % grid + rng.random()
    steps = (np.arange(14) + 0.5) / 14
    for near_row in range(max(0, int(row - DISK_RADIUS)), min(grid, int(row + DISK_RADIUS) + 1)):
        for near_col in range(max(0, int(col - DISK_RADIUS)), min(grid, int(col + DISK_RADIUS) + 1)):
            distance = (near_row + steps - row)[:, None] ** 2 + (near_col + steps - col)[None] ** 2
            clicks[near_row * grid + near_col] += (distance <= DISK_RADIUS**2).mean()


def _near(target: Shares, grid: int) -> Shares:
    """The patches within two of a target."""
    inside = (target > 0.1).reshape(grid, grid)
    return (grown(grown(inside)) & ~inside).reshape(-1).astype(np.float32)
