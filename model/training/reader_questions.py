"""Questions that the reader is trained on: targets on one crop, what its references show of them, and clicks.

`questions` chooses the targets by the set's kind (`ReaderSet.targets`); `answer` turns each into masks and clicks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.training.reader_config import TargetKind

DISK_RADIUS = 5.0 / 14.0
"""Radius of a click's disk in patches, as `model.network.click_maps` draws it on patches of 14 px."""
TOUCHING = 0.08
"""A patch belongs to a part, when neighbours are sought, from this share on."""

Shares = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class CropParts:
    """The pieces of one cached crop, in memory.

    Attributes:
        names: Name of the part that each piece belongs to.
        visible: Whether enough of the piece lies in the crop to be asked for.
        shares: Share of each of the N patches that a piece covers, (pieces, N).
    """

    names: list[str]
    visible: list[bool]
    shares: Shares

    def visible_names(self) -> set[str]:
        """Returns the names with a visible piece."""
        return {name for name, seen in zip(self.names, self.visible, strict=True) if seen}

    def pieces(self, name: str, *, visible: bool = True) -> list[int]:
        """Numbers of the (visible) pieces of that name."""
        return [
            number
            for number, own in enumerate(self.names)
            if own == name and (self.visible[number] or not visible)
        ]

    def union(self, pieces: Sequence[int]) -> Shares:
        """Returns the shares (N,) that these pieces cover together."""
        shares: Shares = np.minimum(self.shares[list(pieces)].sum(axis=0), np.float32(1))
        return shares


@dataclass(frozen=True)
class Question:
    """A target and what the references show of it.

    Attributes:
        pieces: Pieces of the crop that make up the target.
        click_on: Where a positive click may fall: pieces of the crop. Nested targets share them, and one click.
        meant: Per reference, the pieces that its positive mask holds.
        open: Per reference, the pieces of which its negative mask must not speak.
        needs_click: Whether the references alone do not say which piece is meant.
    """

    pieces: list[int]
    click_on: list[int]
    meant: list[list[int]]
    open: list[list[int]]
    needs_click: bool = False


def questions(
    here: CropParts, there: Sequence[CropParts], targets: TargetKind, count: int, rng: Generator
) -> list[Question]:
    """`count` questions of one crop. Half of the time three of them are nested and share their click."""
    common = sorted(here.visible_names().intersection(*(photo.visible_names() for photo in there)))
    if targets in ("instances", "all_instances"):
        return [
            _instance_question(here, there, common, targets == "all_instances", rng) for _ in range(count)
        ]
    asked: list[Question] = []
    if len(common) > 1 and count >= 3 and rng.random() < 0.5:
        asked += _nested_questions(here, there, common, targets, rng)
    while len(asked) < count:
        asked.append(_part_question(here, there, common, targets, rng))
    return asked


def _part_question(
    here: CropParts, there: Sequence[CropParts], common: list[str], targets: TargetKind, rng: Generator
) -> Question:
    """A part, one of its pieces, two parts that touch, the whole object, or any number of parts."""
    choice = rng.random()
    name = common[int(rng.integers(len(common)))]
    if choice < 0.5 or len(common) == 1:
        if all(len(photo.pieces(name)) > 1 for photo in (here, *there)) and rng.random() < 0.4:
            return _piece_question(here, there, name, rng)
        return _named_question(here, there, [name])
    if choice < 0.7:
        return _named_question(here, there, [name, _neighbour(here, name, common, rng)])
    if choice < 0.85 and targets == "object":
        return _whole_question(here, there)
    return _named_question(
        here,
        there,
        [str(n) for n in rng.choice(common, int(rng.integers(2, len(common) + 1)), replace=False)],
    )


def _nested_questions(
    here: CropParts, there: Sequence[CropParts], common: list[str], targets: TargetKind, rng: Generator
) -> list[Question]:
    """Three targets, each inside the next, under one click: only the references tell them apart."""
    if targets == "regions":
        return _covering_questions(here, there, common, rng)
    name = common[int(rng.integers(len(common)))]
    pair = [name, _neighbour(here, name, common, rng)]
    rest = [other for other in common if other not in pair]
    more = (
        [str(n) for n in rng.choice(rest, int(rng.integers(1, len(rest) + 1)), replace=False)] if rest else []
    )
    largest = (
        _whole_question(here, there) if targets == "object" else _named_question(here, there, [*pair, *more])
    )
    inside = here.pieces(name)
    return [
        _clicked_on(question, inside)
        for question in (_named_question(here, there, [name]), _named_question(here, there, pair), largest)
    ]


def _covering_questions(
    here: CropParts, there: Sequence[CropParts], common: list[str], rng: Generator
) -> list[Question]:
    """Up to three regions of different annotators that cover one place, the smallest first."""
    first = here.pieces(common[int(rng.integers(len(common)))])[0]
    place = int(here.shares[first].argmax())
    covering = [
        number
        for number, name in enumerate(here.names)
        if name in common and here.visible[number] and here.shares[number, place] > 0.5
    ] or [first]
    covering.sort(key=lambda number: float(here.shares[number].sum()))
    chosen = covering if len(covering) <= 3 else [covering[0], covering[len(covering) // 2], covering[-1]]
    return [_clicked_on(_named_question(here, there, [here.names[number]]), [chosen[0]]) for number in chosen]


def _named_question(here: CropParts, there: Sequence[CropParts], names: Sequence[str]) -> Question:
    """All pieces of some parts."""
    pieces = [piece for name in names for piece in here.pieces(name, visible=False)]
    meant = [[piece for name in names for piece in photo.pieces(name, visible=False)] for photo in there]
    return Question(pieces, [piece for piece in pieces if here.visible[piece]], meant, meant)


def _whole_question(here: CropParts, there: Sequence[CropParts]) -> Question:
    """All that is labelled."""
    pieces = list(range(len(here.names)))
    meant = [list(range(len(photo.names))) for photo in there]
    return Question(pieces, [piece for piece in pieces if here.visible[piece]], meant, meant)


def _piece_question(here: CropParts, there: Sequence[CropParts], name: str, rng: Generator) -> Question:
    """One of several pieces of a part: references that mark one piece mean one piece, the clicked one.

    Half of the time the references' negative masks hold their other pieces.
    """
    piece = _any(here.pieces(name), rng)
    meant = [[_any(photo.pieces(name), rng)] for photo in there]
    says_others = rng.random() < 0.5
    silent = meant if says_others else [photo.pieces(name, visible=False) for photo in there]
    return Question([piece], [piece], meant, silent, needs_click=True)


def _instance_question(
    here: CropParts, there: Sequence[CropParts], common: list[str], all_labelled: bool, rng: Generator
) -> Question:
    """One thing, two things that touch, or all things of a kind where all of them are labelled."""
    name = common[int(rng.integers(len(common)))]
    several = len(here.pieces(name)) > 1
    if (
        all_labelled
        and several
        and all(len(photo.pieces(name)) > 1 for photo in there)
        and rng.random() < 0.5
    ):
        return _named_question(here, there, [name])
    one = _piece_question(here, there, name, rng)
    if len(common) > 1 and rng.random() < 0.15:
        other = _neighbour(here, name, common, rng)
        second = _piece_question(here, there, other, rng)
        return Question(
            one.pieces + second.pieces,
            one.click_on,
            [a + b for a, b in zip(one.meant, second.meant, strict=True)],
            [a + b for a, b in zip(one.open, second.open, strict=True)],
            needs_click=several or len(here.pieces(other)) > 1,
        )
    return Question(one.pieces, one.click_on, one.meant, one.open, needs_click=several)


def _clicked_on(question: Question, pieces: list[int]) -> Question:
    return Question(question.pieces, pieces, question.meant, question.open, question.needs_click)


def _neighbour(here: CropParts, name: str, common: Sequence[str], rng: Generator) -> str:
    """A part that touches `name` on the grid, else any other part."""
    side = int(np.sqrt(here.shares.shape[1]))
    grown = _grown((here.union(here.pieces(name)) > TOUCHING).reshape(side, side)).reshape(-1)
    others = [other for other in common if other != name]
    touching = [other for other in others if (grown & (here.union(here.pieces(other)) > TOUCHING)).any()]
    return _any(touching or others, rng)


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
        wrong = here.union([_any(outside, rng)]) if outside and rng.random() < 0.7 else _near(target, grid)
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
    return (_grown(_grown(inside)) & ~inside).reshape(-1).astype(np.float32)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask (rows, columns) and the four neighbours of each of its patches."""
    padded = np.pad(mask, 1)
    return np.asarray(
        mask | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:], np.bool_
    )


def _any(items: Sequence[T], rng: Generator) -> T:
    return items[int(rng.integers(len(items)))]
