"""The targets of an evaluation: each part, connected pair of parts and whole of each object (RefCut paper, sec. 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from model.data.annotated_objects import AnnotatedObject
from model.masks import connected, evenly_spaced
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

    Example:
        >>> Sample(3, "pair", ("door", "wheel")).key
        '3/pair/door+wheel'
    """

    annotated_object: int
    kind: Kind
    parts: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of the sample within its set; the same in every run over the same files."""
        return f"{self.annotated_object}/{self.kind}/{'+'.join(self.parts)}"

    @classmethod
    def from_key(cls, key: str) -> Sample:
        """Parse the name of a sample; the inverse of `key`."""
        annotated_object, kind, parts = key.split("/", 2)
        return cls(int(annotated_object), kind, tuple(parts.split("+")))  # type: ignore[arg-type]


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


def _grown_box(mask_hw: BoolMask) -> tuple[int, int, int, int]:
    """(top, bottom, left, right; exclusive ends) of a mask, two pixels wider so that touching masks share a border."""
    rows, cols = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
    return max(0, int(rows[0]) - 2), int(rows[-1]) + 3, max(0, int(cols[0]) - 2), int(cols[-1]) + 3
