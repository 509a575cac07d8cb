"""Endless, repeatable training batches: batch n is the same on every run with the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator, default_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.data.pairs import VIEWS_PER_GROUP, PairSettings, sample_group
from model.data.scenes import Scene
from model.training.config import Stage


@dataclass(frozen=True)
class SourcedScenes:
    """Training scenes of one source, and how often it is drawn from."""

    scenes: list[Scene]
    share: float


@dataclass
class Batch:
    """Tensors of one step. V views, T targets; see `model.data.pairs.Group`."""

    images: Tensor
    targets: Tensor
    target_view: Tensor
    reference_view: Tensor
    positive: Tensor
    negative: Tensor
    clicks_rc: Tensor


class Batches(Dataset[Batch]):
    """Item n = the batch of step n of a stage."""

    def __init__(
        self,
        sources: list[SourcedScenes],
        stage: Stage,
        patch_px: int,
        seed: int,
        first_step: int,
        settings: PairSettings,
    ) -> None:
        self._sources = sources
        self._stage = stage
        self._grid = stage.size_px // patch_px
        self._seed = seed
        self._first_step = first_step
        self._settings = settings
        self._shares = np.array([s.share for s in sources]) / sum(s.share for s in sources)

    def __len__(self) -> int:
        return self._stage.steps - self._first_step

    def __getitem__(self, item: int) -> Batch:
        step = self._first_step + item
        rng = default_rng([self._seed, self._stage.size_px, step])
        groups = []
        for _ in range(self._stage.groups):
            first, second = self._pair(rng)
            groups.append(sample_group(first, second, self._stage.size_px, self._grid, self._settings, rng))
        target_view = np.concatenate([g.target_view + VIEWS_PER_GROUP * n for n, g in enumerate(groups)])
        return Batch(
            images=torch.from_numpy(np.concatenate([g.images for g in groups])).permute(0, 3, 1, 2),
            targets=torch.from_numpy(np.concatenate([g.targets for g in groups]))[:, None],
            target_view=torch.from_numpy(target_view),
            reference_view=torch.from_numpy(target_view ^ 1),
            positive=torch.from_numpy(np.concatenate([g.positive for g in groups])),
            negative=torch.from_numpy(np.concatenate([g.negative for g in groups])),
            clicks_rc=torch.from_numpy(np.concatenate([g.clicks_rc for g in groups])),
        )

    def _pair(self, rng: Generator) -> tuple[Scene, Scene]:
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


def batch_loader(dataset: Batches, workers: int) -> DataLoader[Batch]:
    """One batch an item, in order, made ahead of time by `workers` processes (0 = in this process).

    Workers are spawned: OpenCV's thread pool deadlocks in a fork of a process that has used it.
    """
    return DataLoader(
        dataset,
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_one_thread,
    )


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(1)
