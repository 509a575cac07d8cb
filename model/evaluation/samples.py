"""What is evaluated: every part, connected pair of parts and whole of each object (the RefCut paper, sec. 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from model.data.scenes import Scene
from model.masks import connected
from model.types import BoolMask

Kind = Literal["single", "pair", "whole"]
KINDS: tuple[Kind, ...] = ("single", "pair", "whole")


@dataclass(frozen=True)
class Sample:
    """One target: parts (sorted names) of the scene with this number in its set."""

    scene: int
    kind: Kind
    parts: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names the sample within its set; the same in every run over the same files."""
        return f"{self.scene}/{self.kind}/{'+'.join(self.parts)}"

    @classmethod
    def from_key(cls, key: str) -> Sample:
        """The sample of that name."""
        scene, kind, parts = key.split("/", 2)
        return cls(int(scene), kind, tuple(parts.split("+")))  # type: ignore[arg-type]


@dataclass(frozen=True)
class SampleCounts:
    """How many samples there are, to be held against the paper's. A whole object that is also a pair (two parts that
    touch) or a single part (no other is labelled) is one sample in `by_kind`."""

    by_kind: dict[Kind, int]
    wholes_also_pairs: int
    wholes_also_singles: int

    @property
    def distinct(self) -> int:
        return sum(self.by_kind.values())

    @property
    def with_repeats(self) -> int:
        """The total when such wholes are counted under both kinds."""
        return self.distinct + self.wholes_also_pairs + self.wholes_also_singles

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.by_kind[kind]} {kind}" for kind in KINDS)
        repeats = f"{self.with_repeats} when a whole that is also a pair or part counts twice"
        return f"{self.distinct} samples ({kinds}); {repeats}"


def enumerate_samples(scenes: Sequence[Scene]) -> tuple[list[Sample], SampleCounts]:
    """All samples of a set in the order of its scenes, and their counts. Parts without a pixel are left out."""
    samples: list[Sample] = []
    also_pairs = also_singles = 0
    for number, scene in enumerate(scenes):
        masks = {name: mask for name, mask in scene.masks().items() if mask.any()}
        names = sorted(masks)
        pairs = connected_pairs(masks)
        whole = scene.has_whole and len(names) > 1
        if whole and len(names) == 2:
            also_pairs += len(pairs)
            pairs = []
        also_singles += scene.has_whole and len(names) == 1
        samples += [Sample(number, "single", (name,)) for name in names]
        samples += [Sample(number, "pair", pair) for pair in pairs]
        samples += [Sample(number, "whole", tuple(names))] if whole else []
    found = Counter(sample.kind for sample in samples)
    return samples, SampleCounts({kind: found[kind] for kind in KINDS}, also_pairs, also_singles)


def connected_pairs(masks: dict[str, BoolMask]) -> list[tuple[str, str]]:
    """Sorted pairs of names whose masks (H, W), none of them empty, touch or overlap in the 8-neighbourhood."""
    boxes = {name: _grown_box(mask) for name, mask in masks.items()}
    pairs = []
    for first, second in combinations(sorted(masks), 2):
        (top, bottom, left, right), other = boxes[first], boxes[second]
        near = np.s_[max(top, other[0]) : min(bottom, other[1]), max(left, other[2]) : min(right, other[3])]
        cut = masks[first][near], masks[second][near]
        if cut[0].size and connected(*cut):
            pairs.append((first, second))
    return pairs


def evenly_spread(samples: Iterable[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` samples of each kind at equal steps through their list, in its order; None takes all."""
    chosen = list(samples)
    if limit is None:
        return chosen
    kept: set[Sample] = set()
    for kind in KINDS:
        of_kind = [sample for sample in chosen if sample.kind == kind]
        count = min(limit, len(of_kind))
        kept.update(of_kind[int((place + 0.5) * len(of_kind) / count)] for place in range(count))
    return [sample for sample in chosen if sample in kept]


def _grown_box(mask_hw: BoolMask) -> tuple[int, int, int, int]:
    """top, bottom, left, right (exclusive ends) of a mask, two pixels wider so that touching masks share a border."""
    rows, cols = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
    return max(0, int(rows[0]) - 2), int(rows[-1]) + 3, max(0, int(cols[0]) - 2), int(cols[-1]) + 3
