"""The two ways to make a step's targets out of annotated photographs. Step n draws the same on every run with a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from model.data.augment import Augmentation, augment_zoomed
from model.data.augment_simpleclick import augment_simpleclick
from model.data.click_sampling import click_table
from model.data.pair_sampling import CROPS_PER_GROUP, Group, PairSettings, sample_group
from model.data.refcut_sampling import ReferenceFinder, Sample, sample_pair
from model.data.scenes import Scene
from model.errors import DataError
from model.training.batches import Batch, Sampler
from model.training.config import Stage, TrainConfig

AUGMENTATIONS: dict[str, Augmentation] = {"zoomed": augment_zoomed, "simpleclick": augment_simpleclick}


@dataclass(frozen=True)
class SourcedScenes:
    """Training scenes of one source, and how often it is drawn from."""

    scenes: list[Scene]
    share: float


class GroupSampler:
    """Groups of two views with three targets each (`model.data.pair_sampling`); sources are drawn from by their
    shares."""

    def __init__(
        self, sources: Sequence[SourcedScenes], patch_px: int, views: str, settings: PairSettings
    ) -> None:
        self._sources = sources
        self._patch_px = patch_px
        self._view = AUGMENTATIONS[views]
        self._settings = settings
        self._shares = np.array([s.share for s in sources]) / sum(s.share for s in sources)

    def units(self, stage: Stage) -> int:
        return stage.groups

    def batches(self, stage: Stage, seed: int, step: int, parts: Sequence[range]) -> list[Batch]:
        """All groups of a step come from one generator: those before the parts are drawn and thrown away."""
        rng = default_rng([seed, stage.size_px, step])
        grid = stage.size_px // self._patch_px
        groups = []
        for _ in range(parts[-1].stop):
            first, second = self.pair(rng)
            groups.append(sample_group(first, second, stage.size_px, grid, self._settings, rng, self._view))
        return [joined_groups(groups[part.start : part.stop]) for part in parts]

    def pair(self, rng: Generator) -> tuple[Scene, Scene]:
        """Two scenes whose views are each other's reference; one and the same where there is no other."""
        scenes = self._sources[rng.choice(len(self._sources), p=self._shares)].scenes
        first = scenes[rng.integers(len(scenes))]
        if not first.names_carry or rng.random() < self._settings.same_photo:
            return first, first
        for _ in range(30):
            second = scenes[rng.integers(len(scenes))]
            same_class = second.object_class == first.object_class
            if second is not first and same_class and set(second.part_rles) & set(first.part_rles):
                return first, second
        return first, first


class RefCutSampler:
    """The paper's samples (`model.data.refcut_sampling`): in each epoch every object once, in another order."""

    def __init__(
        self, sources: Sequence[SourcedScenes], patch_px: int, views: str, no_reference: float
    ) -> None:
        self._scenes = [scene for source in sources for scene in source.scenes]
        self._finder = ReferenceFinder(self._scenes)
        self._patch_px = patch_px
        self._view = AUGMENTATIONS[views]
        self._no_reference = no_reference
        self._order: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    def units(self, stage: Stage) -> int:
        return stage.samples

    def batches(self, stage: Stage, seed: int, step: int, parts: Sequence[range]) -> list[Batch]:
        return [joined_samples([self._sample(stage, seed, step, unit) for unit in part]) for part in parts]

    def _sample(self, stage: Stage, seed: int, step: int, unit: int) -> Sample:
        epoch, step_of_epoch = divmod(step, steps_per_epoch(len(self._scenes), stage))
        order = self._order_of(seed, epoch)
        return sample_pair(
            self._scenes[order[(step_of_epoch * stage.samples + unit) % len(order)]],
            self._finder,
            stage.size_px,
            stage.size_px // self._patch_px,
            self._view,
            self._no_reference,
            default_rng([seed, stage.size_px, step, 0, unit]),
        )

    def _order_of(self, seed: int, epoch: int) -> NDArray[np.int64]:
        if self._order is None or self._order[0] != (seed, epoch):
            self._order = (seed, epoch), default_rng([seed, epoch]).permutation(len(self._scenes))
        return self._order[1]


def make_sampler(sources: Sequence[SourcedScenes], patch_px: int, config: TrainConfig) -> Sampler:
    """The configuration's way to make targets. Raises DataError when there is no scene."""
    if not all(source.scenes for source in sources):
        raise DataError("a source has no object to train on", hint="check the paths in the configuration")
    if config.sampling == "refcut":
        return RefCutSampler(sources, patch_px, config.views, config.no_reference)
    return GroupSampler(sources, patch_px, config.views, PairSettings())


def steps_per_epoch(scenes: int, stage: Stage) -> int:
    """Whole steps in which no object comes twice (at least one)."""
    return max(scenes // stage.samples, 1)


def joined_groups(groups: Sequence[Group]) -> Batch:
    """At least one group as tensors; each view is the reference of the other."""
    target_view = np.concatenate([g.target_view + CROPS_PER_GROUP * n for n, g in enumerate(groups)])
    return Batch(
        images=torch.from_numpy(np.concatenate([g.images for g in groups])).permute(0, 3, 1, 2),
        targets=torch.from_numpy(np.concatenate([g.targets for g in groups]))[:, None],
        target_view=torch.from_numpy(target_view),
        reference_view=torch.from_numpy(target_view ^ 1),
        positive=torch.from_numpy(np.concatenate([g.positive for g in groups])),
        negative=torch.from_numpy(np.concatenate([g.negative for g in groups])),
        clicks=click_table(torch.from_numpy(np.concatenate([g.clicks_rc for g in groups]))),
    )


def joined_samples(samples: Sequence[Sample]) -> Batch:
    """At least one sample as tensors; the references' views stand behind the targets'."""
    images = [s.image for s in samples] + [s.reference_image for s in samples]
    return Batch(
        images=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        targets=torch.from_numpy(np.stack([s.target for s in samples]))[:, None],
        target_view=torch.arange(len(samples)),
        reference_view=torch.arange(len(samples), 2 * len(samples)),
        positive=torch.from_numpy(np.stack([s.positive for s in samples])),
        negative=torch.from_numpy(np.stack([s.negative for s in samples])),
        clicks=torch.from_numpy(np.stack([s.clicks for s in samples])),
    )
