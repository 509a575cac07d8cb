"""What the steps of a stage see, in order, shared out among processes: the same on every run with the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.errors import DataError
from model.training.config import Stage


@dataclass
class Batch:
    """Tensors of one part of a step. V views of S px, T targets, N patches of a view, K click slots of each sign.

    images: (V, 3, S, S) uint8. targets: (T, 1, S, S) bool. target_view, reference_view: (T,) which view a target is on,
    and which one its reference. positive, negative: (T, N) shares of the reference's patches. clicks: (T, 2K, 3).
    """

    images: Tensor
    targets: Tensor
    target_view: Tensor
    reference_view: Tensor
    positive: Tensor
    negative: Tensor
    clicks: Tensor


class Sampler(Protocol):
    """One way to make a step's training targets out of scenes. Crosses into loader processes."""

    def units(self, stage: Stage) -> int:
        """How many units (groups or samples) a step has."""

    def batches(self, stage: Stage, seed: int, step: int, parts: Sequence[range]) -> list[Batch]:
        """The units of a step that each part names; parts are in order."""


@dataclass(frozen=True)
class Part:
    """The part of each step that one process computes, cut into as many batches as it accumulates gradients over."""

    rank: int = 0
    processes: int = 1
    accumulate: int = 1

    def ranges(self, units: int) -> list[range]:
        """The units of each batch. Raises DataError when they cannot be shared out evenly."""
        parts = self.processes * self.accumulate
        if units % parts:
            raise DataError(
                f"a step of {units} groups or samples cannot be cut into {parts} equal parts "
                f"({self.processes} processes times accumulate {self.accumulate})",
                hint="change groups or samples of the stage, accumulate, or the number of processes",
            )
        size = units // parts
        starts = [(self.rank * self.accumulate + number) * size for number in range(self.accumulate)]
        return [range(start, start + size) for start in starts]


class Batches(Dataset[list[Batch]]):
    """Item n = what one process sees of the n-th step from `first_step` on."""

    def __init__(self, draw: Sampler, stage: Stage, seed: int, first_step: int, part: Part) -> None:
        self._draw = draw
        self._stage = stage
        self._seed = seed
        self._first_step = first_step
        self._parts = part.ranges(draw.units(stage))

    def __len__(self) -> int:
        return self._stage.steps - self._first_step

    def __getitem__(self, item: int) -> list[Batch]:
        return self._draw.batches(self._stage, self._seed, self._first_step + item, self._parts)


def batch_loader(dataset: Batches, workers: int) -> DataLoader[list[Batch]]:
    """One step an item, in order, made ahead of time by `workers` processes (0 = in this process).

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
