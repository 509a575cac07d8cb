"""The batches of the reader's training: groups of cached crops that are references of each other.

A group is two or three crops that show the same named parts; each has the others as its references. What is asked of a
crop depends on its set (`ReaderSet.targets`). Step n asks the same on every run with a seed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from model.data.feature_cache import CachedCrop, FeatureSet
from model.data.target_sampling import CropParts, Shares, TargetKind, TargetShares, questions
from model.errors import DataError
from model.training.reader_config import ReaderTraining
from model.training.reader_questions import answer


@dataclass(frozen=True)
class ReaderBatch:
    """A step. B crops, R references of each, N patches, K targets on each crop.

    Attributes:
        features: Frozen features of the crops, float16 (B, N, D).
        references: Which crops are the references of each, (B, R).
        positive: Share of each reference patch inside the positive mask, float32 (B, R * N, K).
        negative: The same of the negative mask.
        clicks: Share of each patch under positive and negative click disks, float32 (B, K, 2, N).
        targets: Share of each patch that belongs to the target, float32 (B, K, N).
    """

    features: NDArray[np.float16]
    references: NDArray[np.int64]
    positive: Shares
    negative: Shares
    clicks: Shares
    targets: Shares


class _CachedSet:
    """The cached crops of one set, and which of them can be references of which."""

    def __init__(self, cache: Path, name: str, crops: int, targets: TargetKind) -> None:
        if targets == "regions" and crops < 2:
            raise DataError(
                f"{name} needs at least 2 crops: its references are other crops of the same photographs",
                hint="cache more crops, or leave the set out",
            )
        self.targets = targets
        self.caches = [FeatureSet(cache / f"{name}-{number}") for number in range(crops)]
        self.entries: list[tuple[int, int]] = []
        self._names: list[set[str]] = []
        self._by_name: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._by_photograph: dict[str, list[int]] = defaultdict(list)
        for number, cache_of_crop in enumerate(self.caches):
            for place, crop in enumerate(cache_of_crop.crops):
                names = {piece.name for piece in crop.pieces if piece.visible}
                if not names:
                    continue
                entry = len(self.entries)
                self.entries.append((number, place))
                self._names.append(names)
                self._by_photograph[crop.photograph].append(entry)
                for own in sorted(names):
                    self._by_name[crop.object_class, own].append(entry)
        if not self.entries:
            raise DataError(f"{name} has no target in the cache", hint="check the set and its crops")

    def crop(self, entry: int) -> CachedCrop:
        number, place = self.entries[entry]
        return self.caches[number].crops[place]

    def features(self, entry: int) -> NDArray[np.float16]:
        number, place = self.entries[entry]
        return self.caches[number].features(place)

    def photo(self, entry: int) -> CropParts:
        number, _ = self.entries[entry]
        pieces = self.crop(entry).pieces
        return CropParts(
            [piece.name for piece in pieces],
            [piece.visible for piece in pieces],
            self.caches[number].shares([piece.row for piece in pieces]),
        )

    def group(self, size: int, rng: Generator) -> list[int]:
        """Entries that all show one part at least; fewer than `size` if there are not as many.

        The crops are all different, and of different photographs unless they are meant to be of the same one.
        """
        group: list[int] = []
        for _ in range(20):
            first = int(rng.integers(len(self.entries)))
            same_photograph = self.targets == "regions" or rng.random() < 0.08
            group, common = [first], self._names[first]
            if same_photograph:
                candidates = self._by_photograph[self.crop(first).photograph]
            else:
                own = sorted(common)[int(rng.integers(len(common)))]
                candidates = self._by_name[self.crop(first).object_class, own]
            for _ in range(4 * size):
                other = candidates[int(rng.integers(len(candidates)))]
                photographs = {self.crop(entry).photograph for entry in group}
                new = other not in group and (
                    same_photograph or self.crop(other).photograph not in photographs
                )
                if new and common & self._names[other]:
                    group, common = [*group, other], common & self._names[other]
                if len(group) == size:
                    return group
        return group


class ReaderSampler:
    """Makes the batch of each step."""

    def __init__(self, config: ReaderTraining, cache: Path) -> None:
        """Opens the cached crops 0 .. `config.crops` - 1 of all sets.

        Raises:
            DataError: If one of them is missing.
        """
        self._config = config
        self._shares = TargetShares(name_weights=config.name_weights)
        self._sets = [
            _CachedSet(cache, name, one.crops or config.crops, one.targets)
            for name, one in config.sets.items()
        ]
        shares = np.array([one.share for one in config.sets.values()])
        self._odds = shares / shares.sum()

    @property
    def grid(self) -> int:
        """Patches down and across a crop."""
        return self._sets[0].caches[0].grid

    @property
    def feature_dim(self) -> int:
        """Numbers per patch."""
        return int(self._sets[0].caches[0].features(0).shape[-1])

    def batch(self, step: int, part: range | None = None) -> ReaderBatch:
        """The batch of a step, or a part of it.

        Args:
            step: Counted from 0.
            part: Numbers of the groups to make, within the step's `config.groups`; None makes all of them.
        """
        size = 3 if default_rng([self._config.seed, step]).random() < self._config.triples else 2
        parts = [self._unit(step, number, size) for number in part or range(self._config.groups)]
        offsets = [size * number for number in range(len(parts))]
        return ReaderBatch(
            features=np.concatenate([part.features for part in parts]),
            references=np.concatenate(
                [part.references + offset for part, offset in zip(parts, offsets, strict=True)]
            ),
            positive=np.concatenate([part.positive for part in parts]),
            negative=np.concatenate([part.negative for part in parts]),
            clicks=np.concatenate([part.clicks for part in parts]),
            targets=np.concatenate([part.targets for part in parts]),
        )

    def _unit(self, step: int, number: int, size: int) -> ReaderBatch:
        rng = default_rng([self._config.seed, step, number])
        while True:
            one = self._sets[rng.choice(len(self._sets), p=self._odds)]
            group = one.group(size, rng)
            if len(group) == size:
                return self._group(one, group, rng)

    def _group(self, one: _CachedSet, group: list[int], rng: Generator) -> ReaderBatch:
        photos = [one.photo(entry) for entry in group]
        everyone = list(range(len(group)))
        references = np.array([[other for other in everyone if other != own] for own in everyone])
        rows = []
        for own in everyone:
            others = [photos[other] for other in references[own]]
            asked = questions(photos[own], others, one.targets, self._config.targets, self._shares, rng)
            rows.append([answer(photos[own], others, question, self.grid, rng) for question in asked])
        return ReaderBatch(
            features=np.stack([one.features(entry) for entry in group]),
            references=references,
            positive=np.stack([np.stack([row[0] for row in own], axis=-1) for own in rows]),
            negative=np.stack([np.stack([row[1] for row in own], axis=-1) for own in rows]),
            clicks=np.stack([np.stack([row[2] for row in own]) for own in rows]),
            targets=np.stack([np.stack([row[3] for row in own]) for own in rows]),
        )
