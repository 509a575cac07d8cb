"""What is asked of a crop in training: which of its pieces are the target, and which pieces a reference shows of it.

A piece is one connected or separately labelled part of a crop. `questions` chooses targets by what a set's labels mean
(`TargetKind`):

    kind            what can be asked for
    object          a part, one of its pieces, two parts that touch, any parts, the whole object
    parts           the same without the whole, because not every part is labelled
    instances       one thing, or two things that touch
    all_instances   the same, or all things of a name, because every one of them is labelled
    regions         pieces without names, whose reference is another crop of the same photograph

Half of the crops or so get nested targets under one click, so that only the references tell them apart. The masks and
clicks of a question are made elsewhere: in pixels by `model.data.pair_sampling`, on the grid of patches by
`model.training.reader_questions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

TargetKind = Literal["object", "parts", "instances", "all_instances", "regions"]
TOUCHING = 0.08
"""A patch belongs to a piece, when neighbours are sought, from this share on."""
OVERLAPPING = 0.3
"""Two parts that share more than this much of the smaller one are no neighbours: one lies in the other."""
OTHERS_NEGATIVE = 0.5
"""How often the negative mask of a reference that marks one of several pieces holds the other pieces."""
NESTED = 3
"""Most targets that share a click."""

Shares = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class TargetShares:
    """How often each kind of target is drawn, 0 to 1.

    Attributes:
        single: The target is one part.
        one_piece: Of the single parts that have several pieces on all photographs: the target is one of the pieces.
        connected_pair: The target is two parts that touch.
        whole: The target is the whole object. What remains after `single`, `connected_pair` and `whole` are several
            parts.
        shared_click: Three of a crop's targets are nested and share one click (not for instances).
        two_things: The target is two things that touch (instances).
        all_things: The target is all things of a name, where there are several and all are labelled.
        nested_things: The same as `shared_click`, for instances.
    """

    single: float = 0.5
    one_piece: float = 0.4
    connected_pair: float = 0.2
    whole: float = 0.15
    shared_click: float = 0.5
    two_things: float = 0.15
    all_things: float = 0.5
    nested_things: float = 0.0


@dataclass(frozen=True)
class CropParts:
    """The pieces of one crop, on the grid of patches.

    Attributes:
        names: Name of the part that each piece belongs to.
        visible: Whether enough of the piece lies in the crop to be asked for.
        shares: Share of each of the N patches that a piece covers, (pieces, N).
        objects: Object that each piece belongs to, where one was pasted in (`model.data.pasting`); empty otherwise.
    """

    names: list[str]
    visible: list[bool]
    shares: Shares
    objects: Sequence[str] = ()

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

    def touching(self, pieces: Sequence[int], candidates: Sequence[int]) -> list[int]:
        """Returns the candidates that lie within a patch of `pieces` and hardly overlap them."""
        side = int(np.sqrt(self.shares.shape[1]))
        inside = self.union(pieces)
        near = grown((inside > TOUCHING).reshape(side, side)).reshape(-1)
        found = []
        for number in candidates:
            own = self.shares[number]
            overlap = float(np.maximum(own + inside - 1, 0).sum())
            smaller = min(float(own.sum()), float(inside.sum()))
            if bool((near & (own > TOUCHING)).any()) and overlap <= OVERLAPPING * smaller:
                found.append(number)
        return found


@dataclass(frozen=True)
class Question:
    """A target and what the references show of it.

    Attributes:
        pieces: Pieces of the crop that make up the target.
        click_on: Where a positive click may fall: pieces of the crop.
        meant: Per reference, the pieces that its positive mask holds.
        open: Per reference, the pieces of which its negative mask must not speak.
        needs_click: Whether the references alone do not say which piece is meant.
        nested: Whether it shares its click with the other nested questions of the crop.
    """

    pieces: list[int]
    click_on: list[int]
    meant: list[list[int]]
    open: list[list[int]]
    needs_click: bool = False
    nested: bool = False


def questions(
    here: CropParts,
    there: Sequence[CropParts],
    targets: TargetKind,
    count: int,
    shares: TargetShares,
    rng: Generator,
) -> list[Question]:
    """Choose the targets of a crop.

    Args:
        here: The crop.
        there: Its references; all of them show a part that `here` shows.
        targets: What the labels mean.
        count: Number of targets.
        shares: How often each kind is drawn.
        rng: Draws everything random.

    Returns:
        `count` questions. Nested ones come first.
    """
    common = sorted(here.visible_names().intersection(*(photo.visible_names() for photo in there)))
    asked: list[Question] = []
    if targets in ("instances", "all_instances"):
        if count >= NESTED and shares.nested_things and rng.random() < shares.nested_things:
            asked += _nested_things(here, there, common, targets, rng)
        while len(asked) < count:
            asked.append(_thing_question(here, there, common, targets, shares, rng))
        return asked
    if len(common) > 1 and count >= NESTED and rng.random() < shares.shared_click:
        asked += _nested_parts(here, there, common, targets, shares, rng)
    while len(asked) < count:
        asked.append(_part_question(here, there, common, targets, shares, rng))
    return asked


def _part_question(
    here: CropParts,
    there: Sequence[CropParts],
    common: list[str],
    targets: TargetKind,
    shares: TargetShares,
    rng: Generator,
) -> Question:
    """A part, one of its pieces, two parts that touch, the whole object, or several parts."""
    choice = rng.random()
    name = pick(common, rng)
    if choice < shares.single or len(common) == 1:
        if _several(here, there, name) and rng.random() < shares.one_piece:
            return _piece_question(here, there, name, rng)
        return _named_question(here, there, [name])
    if choice < shares.single + shares.connected_pair:
        return _named_question(here, there, [name, _neighbour(here, [name], common, rng)])
    if choice < shares.single + shares.connected_pair + shares.whole and targets == "object":
        return _whole_question(here, there)
    if targets == "regions":
        return _named_question(here, there, _adjoining(here, name, common, rng))
    return _named_question(
        here,
        there,
        [str(n) for n in rng.choice(common, int(rng.integers(2, len(common) + 1)), replace=False)],
    )


def _nested_parts(
    here: CropParts,
    there: Sequence[CropParts],
    common: list[str],
    targets: TargetKind,
    shares: TargetShares,
    rng: Generator,
) -> list[Question]:
    """Three targets, each inside the next: part, pair, whole; or one piece, its part, and what holds both."""
    if targets == "regions":
        return _covering_questions(here, there, common, rng)
    name = pick(common, rng)
    pair = [name, _neighbour(here, [name], common, rng)]
    rest = [other for other in common if other not in pair]
    more = (
        [str(n) for n in rng.choice(rest, int(rng.integers(1, len(rest) + 1)), replace=False)] if rest else []
    )
    largest = (
        _whole_question(here, there) if targets == "object" else _named_question(here, there, [*pair, *more])
    )
    part = _named_question(here, there, [name])
    if _several(here, there, name) and rng.random() < shares.one_piece:
        piece = _piece_question(here, there, name, rng)
        return sharing_click([piece, part, largest], piece.pieces)
    return sharing_click([part, _named_question(here, there, pair), largest], here.pieces(name))


def _nested_things(
    here: CropParts, there: Sequence[CropParts], common: list[str], targets: TargetKind, rng: Generator
) -> list[Question]:
    """One thing, the thing with one that it touches, and all of its name; empty if there is only the thing."""
    name = pick(common, rng)
    one = _piece_question(here, there, name, rng)
    nested = [one, *_with_neighbour(here, there, one, common, rng)]
    if targets == "all_instances" and _several(here, there, name):
        nested.append(_named_question(here, there, [name]))
    return sharing_click(nested, one.pieces) if len(nested) > 1 else []


def _covering_questions(
    here: CropParts, there: Sequence[CropParts], common: list[str], rng: Generator
) -> list[Question]:
    """Up to three regions of different annotators that cover one place, the smallest first."""
    first = here.pieces(pick(common, rng))[0]
    place = int(here.shares[first].argmax())
    covering = [
        number
        for number, name in enumerate(here.names)
        if name in common and here.visible[number] and here.shares[number, place] > 0.5
    ] or [first]
    covering.sort(key=lambda number: float(here.shares[number].sum()))
    chosen = (
        covering if len(covering) <= NESTED else [covering[0], covering[len(covering) // 2], covering[-1]]
    )
    asked = [_named_question(here, there, [here.names[number]]) for number in chosen]
    return sharing_click(asked, [chosen[0]])


def _thing_question(
    here: CropParts,
    there: Sequence[CropParts],
    common: list[str],
    targets: TargetKind,
    shares: TargetShares,
    rng: Generator,
) -> Question:
    """One thing, two things that touch, or all things of a name where all of them are labelled."""
    name = pick(common, rng)
    if targets == "all_instances" and _several(here, there, name) and rng.random() < shares.all_things:
        return _named_question(here, there, [name])
    one = _piece_question(here, there, name, rng)
    if rng.random() < shares.two_things:
        for two in _with_neighbour(here, there, one, common, rng):
            return two
    return one


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
    """One of the pieces of a part: references that mark one piece mean one piece, the clicked one."""
    return _pieces_question(
        here, there, [pick(here.pieces(name), rng)], [[pick(photo.pieces(name), rng)] for photo in there], rng
    )


def _pieces_question(
    here: CropParts,
    there: Sequence[CropParts],
    pieces: list[int],
    meant: list[list[int]],
    rng: Generator,
) -> Question:
    """Some pieces. The references' negative masks hold the other pieces of these names, or do not speak of them."""
    if rng.random() < OTHERS_NEGATIVE:
        silent = meant
    else:
        silent = [
            [other for number in own for other in photo.pieces(photo.names[number], visible=False)]
            for photo, own in zip(there, meant, strict=True)
        ]
    needs_click = any(
        not set(here.pieces(here.names[piece], visible=False)) <= set(pieces) for piece in pieces
    )
    return Question(pieces, pieces, meant, silent, needs_click)


def _with_neighbour(
    here: CropParts, there: Sequence[CropParts], one: Question, common: list[str], rng: Generator
) -> list[Question]:
    """The question of a thing and one that it touches: a list of one, or empty if there is none.

    The other may have the same name if no third of that name touches the thing: one click is enough then.
    """
    (piece,) = one.pieces
    name = here.names[piece]
    touching = [
        other
        for other in here.touching(one.pieces, [p for own in common for p in here.pieces(own)])
        if other != piece
    ]
    same = [other for other in touching if here.names[other] == name]
    if len(same) > 1 or not all(
        photo.touching(first, _others(photo, name, first))
        for photo, first in zip(there, one.meant, strict=True)
    ):
        touching = [other for other in touching if other not in same]
    if not touching:
        return []
    second = pick(touching, rng)
    meant = []
    for photo, first in zip(there, one.meant, strict=True):
        others = _others(photo, here.names[second], first)
        meant.append([*first, pick(photo.touching(first, others) or others, rng)])
    both = _pieces_question(here, there, [piece, second], meant, rng)
    return [replace(both, click_on=one.click_on)]


def _others(photo: CropParts, name: str, pieces: Sequence[int]) -> list[int]:
    """The visible pieces of a name besides `pieces`."""
    return [piece for piece in photo.pieces(name) if piece not in pieces]


def sharing_click(nested: list[Question], pieces: list[int]) -> list[Question]:
    """Nested questions whose one click falls on `pieces`."""
    return [replace(question, click_on=pieces, nested=True) for question in nested]


def _several(here: CropParts, there: Sequence[CropParts], name: str) -> bool:
    """Whether every photograph shows several pieces of that name."""
    return all(len(photo.pieces(name)) > 1 for photo in (here, *there))


def _adjoining(here: CropParts, name: str, common: Sequence[str], rng: Generator) -> list[str]:
    """A region and up to three others, each of which touches one before."""
    names = [name]
    for _ in range(int(rng.integers(1, 4))):
        if len(names) < len(common):
            names.append(_neighbour(here, names, common, rng))
    return names


def _neighbour(here: CropParts, names: Sequence[str], common: Sequence[str], rng: Generator) -> str:
    """A part that touches `names` on the grid, else any other part."""
    others = [other for other in common if other not in names]
    pieces = [piece for name in names for piece in here.pieces(name)]
    candidates = [piece for other in others for piece in here.pieces(other)]
    touching = sorted({here.names[piece] for piece in here.touching(pieces, candidates)})
    return pick(touching or others, rng)


def grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask (rows, columns) and the four neighbours of each of its patches."""
    padded = np.pad(mask, 1)
    return np.asarray(
        mask | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:], np.bool_
    )


def pick(items: Sequence[T], rng: Generator) -> T:
    """Draw one of at least one item."""
    return items[int(rng.integers(len(items)))]
