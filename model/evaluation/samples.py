"""The targets of an evaluation: each part, connected pair of parts and whole of each object (RefCut paper, sec. 4)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from model.data.annotated_objects import AnnotatedObject
from model.masks import bounding_box, connected, evenly_spaced
from model.types import BoolMask

Kind = Literal["single", "pair", "whole"]
KINDS: tuple[Kind, ...] = ("single", "pair", "whole")


@dataclass(frozen=True)
class Sample:
    """One target of an evaluation.

    Attributes:
        annotated_object: Number of the annotated object in its set.
        kind: "single", "pair" or "whole".
        parts: Sorted names of the parts whose union is the target.
        repeat: A target is repeated with other references and clicks where a set has too few (`with_repeats`). 0 is the
            paper's sample; the others are counted from 1.

    Example:
        >>> Sample(3, "pair", ("door", "wheel")).key
        '3/pair/door+wheel'
        >>> Sample(3, "pair", ("door", "wheel"), repeat=2).key
        '3/pair.2/door+wheel'
    """

    annotated_object: int
    kind: Kind
    parts: tuple[str, ...]
    repeat: int = 0

    @property
    def key(self) -> str:
        """Name of the sample within its set; the same in every run over the same files."""
        kind = f"{self.kind}.{self.repeat}" if self.repeat else self.kind
        return f"{self.annotated_object}/{kind}/{'+'.join(self.parts)}"

    @classmethod
    def from_key(cls, key: str) -> Sample:
        """Parse the name of a sample; the inverse of `key`."""
        annotated_object, given, parts = key.split("/", 2)
        kind, _, repeat = given.partition(".")
        return cls(int(annotated_object), kind, tuple(parts.split("+")), int(repeat or 0))  # type: ignore[arg-type]


@dataclass(frozen=True)
class SampleCounts:
    """Number of samples in a set, for comparison with the paper's counts.

    A whole object that is also a pair (two parts that touch) or a single part (no other is labelled) is one sample.

    Attributes:
        by_kind: Samples of each kind.
        wholes_also_pairs: Wholes that are also a pair.
        wholes_also_singles: Wholes that are also a single part.
    """

    by_kind: dict[Kind, int]
    wholes_also_pairs: int
    wholes_also_singles: int

    @property
    def distinct(self) -> int:
        """Number of different samples."""
        return sum(self.by_kind.values())

    @property
    def with_repeats(self) -> int:
        """Number of samples if such wholes are counted under both kinds."""
        return self.distinct + self.wholes_also_pairs + self.wholes_also_singles

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.by_kind[kind]} {kind}" for kind in KINDS)
        repeats = f"{self.with_repeats} when a whole that is also a pair or part counts twice"
        return f"{self.distinct} samples ({kinds}); {repeats}"


def enumerate_samples(annotated_objects: Sequence[AnnotatedObject]) -> tuple[list[Sample], SampleCounts]:
    """List and count the samples of a set, in the order of its annotated objects. Empty parts are left out."""
    samples: list[Sample] = []
    also_pairs = also_singles = 0
    for number, annotated_object in enumerate(annotated_objects):
        masks = {name: mask for name, mask in annotated_object.masks().items() if mask.any()}
        names = sorted(masks)
        pairs = connected_pairs(masks)
        whole = annotated_object.has_whole and len(names) > 1
        if whole and len(names) == 2:
            also_pairs += len(pairs)
            pairs = []
        also_singles += annotated_object.has_whole and len(names) == 1
        samples += [Sample(number, "single", (name,)) for name in names]
        samples += [Sample(number, "pair", pair) for pair in pairs]
        samples += [Sample(number, "whole", tuple(names))] if whole else []
    found = Counter(sample.kind for sample in samples)
    return samples, SampleCounts({kind: found[kind] for kind in KINDS}, also_pairs, also_singles)


def connected_pairs(masks: dict[str, BoolMask]) -> list[tuple[str, str]]:
    """Find the pairs of parts that touch or overlap (8-neighbourhood).

    Args:
        masks: Non-empty masks (H, W) by name of the part.

    Returns:
        Pairs of names, sorted.
    """
    boxes = {name: _grown_box(mask) for name, mask in masks.items()}
    pairs = []
    for first, second in combinations(sorted(masks), 2):
        (top, bottom, left, right), other = boxes[first], boxes[second]
        near = np.s_[max(top, other[0]) : min(bottom, other[1]), max(left, other[2]) : min(right, other[3])]
        cut = masks[first][near], masks[second][near]
        if cut[0].size and connected(*cut):
            pairs.append((first, second))
    return pairs


def limit_samples(samples: Iterable[Sample], limit: int | None) -> list[Sample]:
    """Pick at most `limit` samples of each kind at equal distances, in their order; None takes all."""
    all_samples = list(samples)
    if limit is None:
        return all_samples
    chosen: set[Sample] = set()
    for kind in KINDS:
        chosen.update(evenly_spaced([sample for sample in all_samples if sample.kind == kind], limit))
    return [sample for sample in all_samples if sample in chosen]


def with_repeats(samples: Sequence[Sample], at_least: int) -> list[Sample]:
    """Repeat the samples of each kind until there are enough of it.

    A repeat has the next reference in line, and its clicks fall beside the middle of the error. Repeats of one photograph
    are not independent, which standard errors clustered by photograph take into account.

    Args:
        samples: Samples of one set, in any order.
        at_least: Samples that each kind should have. A kind without any sample stays without.

    Returns:
        The samples and their repeats, in the order of the annotated objects.
    """
    chosen = list(samples)
    for kind in KINDS:
        own = [sample for sample in samples if sample.kind == kind]
        repeat = 0
        while own and (missing := at_least - len(own) * (1 + repeat)) > 0:
            repeat += 1
            chosen += [dataclasses.replace(sample, repeat=repeat) for sample in evenly_spaced(own, missing)]
    return sorted(chosen, key=lambda sample: sample.annotated_object)


def _grown_box(mask_hw: BoolMask) -> tuple[int, int, int, int]:
    """(top, bottom, left, right; exclusive ends) of a mask, two pixels wider so that touching masks share a border."""
    box = bounding_box(mask_hw)
    return max(0, box.row_min - 2), box.row_max + 3, max(0, box.col_min - 2), box.col_max + 3
