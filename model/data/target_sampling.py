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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
        name_weights: How often a name is drawn, relative to the other names that a crop shows; 1 if it is left out. Parts
            that are hard to tell from a neighbour are learned when they are asked for often.
    """

    single: float = 0.5
    one_piece: float = 0.4
    connected_pair: float = 0.2
    whole: float = 0.15
    shared_click: float = 0.5
    two_things: float = 0.15
    all_things: float = 0.5
    nested_things: float = 0.0
    name_weights: Mapping[str, float] = field(default_factory=dict)


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
        open: Per reference, the pieces that its negative mask leaves out.
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
    return _Draw(here, there, common, targets, shares, rng).questions(count)


@dataclass(frozen=True)
class _Draw:
    """Draws the questions of one crop; see `questions`. `common` are the names that all photographs show."""

    here: CropParts
    there: Sequence[CropParts]
    common: list[str]
    targets: TargetKind
    shares: TargetShares
    rng: Generator

    def questions(self, count: int) -> list[Question]:
        """Nested questions, if they are drawn, and further ones up to `count`."""
        things = self.targets in ("instances", "all_instances")
        asked = (self._nested_things() if things else self._nested_parts()) if count >= NESTED else []
        while len(asked) < count:
            asked.append(self._thing() if things else self._part())
        return asked

    def _name(self) -> str:
        weights = [self.shares.name_weights.get(name, 1.0) for name in self.common]
        if len(set(weights)) == 1:
            return pick(self.common, self.rng)
        return self.common[int(self.rng.choice(len(weights), p=np.array(weights) / sum(weights)))]

    def _part(self) -> Question:
        """A part, one of its pieces, two parts that touch, the whole object, or several parts."""
        choice = self.rng.random()
        name = self._name()
        if choice < self.shares.single or len(self.common) == 1:
            return self._one_piece(name) if self._asks_for_one_piece(name) else self._named([name])
        if choice < self.shares.single + self.shares.connected_pair:
            return self._named([name, self._neighbour([name])])
        whole_until = self.shares.single + self.shares.connected_pair + self.shares.whole
        if choice < whole_until and self.targets == "object":
            return self._whole()
        if self.targets == "regions":
            return self._named(self._adjoining(name))
        return self._named(self._some(self.common, 2))

    def _nested_parts(self) -> list[Question]:
        """Three targets, each inside the next: part, pair, whole; or one piece, its part, and what holds both."""
        if len(self.common) < 2 or self.rng.random() >= self.shares.shared_click:
            return []
        if self.targets == "regions":
            return self._covering()
        name = self._name()
        pair = [name, self._neighbour([name])]
        rest = [other for other in self.common if other not in pair]
        more = self._some(rest, 1) if rest else []
        largest = self._whole() if self.targets == "object" else self._named([*pair, *more])
        part = self._named([name])
        if self._asks_for_one_piece(name):
            piece = self._one_piece(name)
            return sharing_click([piece, part, largest], piece.pieces)
        return sharing_click([part, self._named(pair), largest], self.here.pieces(name))

    def _covering(self) -> list[Question]:
        """Up to three regions of different annotators that cover one place, the smallest first."""
        first = self.here.pieces(pick(self.common, self.rng))[0]
        place = int(self.here.shares[first].argmax())
        covering = [
            number
            for number, name in enumerate(self.here.names)
            if name in self.common and self.here.visible[number] and self.here.shares[number, place] > 0.5
        ] or [first]
        covering.sort(key=lambda number: float(self.here.shares[number].sum()))
        if len(covering) > NESTED:
            covering = [covering[0], covering[len(covering) // 2], covering[-1]]
        asked = [self._named([self.here.names[number]]) for number in covering]
        return sharing_click(asked, [covering[0]])

    def _thing(self) -> Question:
        """One thing, two things that touch, or all things of a name where all of them are labelled."""
        name = self._name()
        several = self.targets == "all_instances" and self._shows_several(name)
        if several and self.rng.random() < self.shares.all_things:
            return self._named([name])
        one = self._one_piece(name)
        both = self._with_neighbour(one) if self.rng.random() < self.shares.two_things else None
        return both or one

    def _nested_things(self) -> list[Question]:
        """One thing, the thing with one that it touches, and all of its name; empty if there is only the thing."""
        if not self.shares.nested_things or self.rng.random() >= self.shares.nested_things:
            return []
        name = self._name()
        one = self._one_piece(name)
        both = self._with_neighbour(one)
        nested = [one, both] if both else [one]
        if self.targets == "all_instances" and self._shows_several(name):
            nested.append(self._named([name]))
        return sharing_click(nested, one.pieces) if len(nested) > 1 else []

    def _named(self, names: Sequence[str]) -> Question:
        """All pieces of some parts."""
        here, *there = (
            [piece for name in names for piece in photo.pieces(name, visible=False)]
            for photo in (self.here, *self.there)
        )
        return self._all_of(here, there)

    def _whole(self) -> Question:
        """All that is labelled."""
        here, *there = (list(range(len(photo.names))) for photo in (self.here, *self.there))
        return self._all_of(here, there)

    def _all_of(self, pieces: list[int], meant: list[list[int]]) -> Question:
        """Pieces with nothing else of their names: the references alone name them."""
        return Question(pieces, [piece for piece in pieces if self.here.visible[piece]], meant, meant)

    def _one_piece(self, name: str) -> Question:
        """One of the pieces of a part: references that mark one piece mean one piece, the clicked one."""
        here, *there = ([pick(photo.pieces(name), self.rng)] for photo in (self.here, *self.there))
        return self._some_of(here, there)

    def _some_of(self, pieces: list[int], meant: list[list[int]]) -> Question:
        """Some pieces. The references' negative masks hold the other pieces of these names, or leave them out."""
        if self.rng.random() < OTHERS_NEGATIVE:
            left_out = meant
        else:
            left_out = [
                [other for number in own for other in photo.pieces(photo.names[number], visible=False)]
                for photo, own in zip(self.there, meant, strict=True)
            ]
        needs_click = any(
            not set(self.here.pieces(self.here.names[piece], visible=False)) <= set(pieces)
            for piece in pieces
        )
        return Question(pieces, pieces, meant, left_out, needs_click)

    def _with_neighbour(self, one: Question) -> Question | None:
        """The question of a thing and one that it touches; None if there is none.

        The other may have the same name if no third of that name touches the thing: one click is enough then.
        """
        (piece,) = one.pieces
        name = self.here.names[piece]
        candidates = [other for own in self.common for other in self.here.pieces(own) if other != piece]
        touching = self.here.touching(one.pieces, candidates)
        same = [other for other in touching if self.here.names[other] == name]
        if len(same) > 1 or not all(
            photo.touching(first, _others(photo, name, first))
            for photo, first in zip(self.there, one.meant, strict=True)
        ):
            touching = [other for other in touching if other not in same]
        if not touching:
            return None
        second = pick(touching, self.rng)
        meant = []
        for photo, first in zip(self.there, one.meant, strict=True):
            others = _others(photo, self.here.names[second], first)
            meant.append([*first, pick(photo.touching(first, others) or others, self.rng)])
        return replace(self._some_of([piece, second], meant), click_on=one.click_on)

    def _asks_for_one_piece(self, name: str) -> bool:
        return self._shows_several(name) and self.rng.random() < self.shares.one_piece

    def _shows_several(self, name: str) -> bool:
        """Whether every photograph shows several pieces of that name."""
        return all(len(photo.pieces(name)) > 1 for photo in (self.here, *self.there))

    def _some(self, names: Sequence[str], least: int) -> list[str]:
        """At least `least` of some names, in random order."""
        count = int(self.rng.integers(least, len(names) + 1))
        return [str(name) for name in self.rng.choice(names, count, replace=False)]

    def _adjoining(self, name: str) -> list[str]:
        """A region and up to three others, each of which touches one before."""
        names = [name]
        for _ in range(int(self.rng.integers(1, 4))):
            if len(names) < len(self.common):
                names.append(self._neighbour(names))
        return names

    def _neighbour(self, names: Sequence[str]) -> str:
        """A part that touches `names` on the grid, else any other part."""
        others = [other for other in self.common if other not in names]
        pieces = [piece for name in names for piece in self.here.pieces(name)]
        candidates = [piece for other in others for piece in self.here.pieces(other)]
        touching = sorted({self.here.names[piece] for piece in self.here.touching(pieces, candidates)})
        return pick(touching or others, self.rng)


def _others(photo: CropParts, name: str, pieces: Sequence[int]) -> list[int]:
    """The visible pieces of a name besides `pieces`."""
    return [piece for piece in photo.pieces(name) if piece not in pieces]


def sharing_click(nested: list[Question], pieces: list[int]) -> list[Question]:
    """Nested questions whose one click falls on `pieces`."""
    return [replace(question, click_on=pieces, nested=True) for question in nested]


def grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask (rows, columns) and the four neighbours of each of its patches."""
    padded = np.pad(mask, 1)
    return np.asarray(
        mask | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:], np.bool_
    )


def pick(items: Sequence[T], rng: Generator) -> T:
    """Draw one of at least one item."""
    return items[int(rng.integers(len(items)))]
