"""The data of each training step: what a batch holds, how a step is split over processes, and the loader.

A step sees the same targets on every run with the same seed, however many processes compute it. It takes three things:

- a `Sampler` makes the units (groups or samples) of step n;
- a `Part` names the units of a step that one process computes, and how many batches it computes them in;
- `Batches` combines both into a torch data set with one item per step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Protocol

import cv2
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.errors import DataError
from model.training.config import Stage


@dataclass
class Batch:
    """Tensors that one forward and backward pass needs.

    V crops of S x S px, T targets, N patches per crop, K click slots of each sign.

    Attributes:
        images: Crops (V, 3, S, S), uint8, RGB.
        targets: Masks to be segmented (T, 1, S, S), bool.
        target_crop: Index of the crop that each target is on (T,), int64.
        reference_crop: Index of the crop that shows each target's reference (T,), int64.
        positive: Share of each patch of the reference crop inside the positive mask (T, N), float32, 0 to 1. All zero
            means no positive mask.
        negative: The same for the negative mask (T, N).
        clicks: First clicks (T, 2K, 3) as rows (row, column, order) in pixels of the crop, K positive slots before K
            negative ones. Unused slots are -1.
        boxes: Box around each target (T, 4), float32, as rows (row_min, col_min, row_max, col_max) in pixels of the
            crop, both ends inclusive. All -1 for none. A target with a box need not have a click.
    """

    images: Tensor
    targets: Tensor
    target_crop: Tensor
    reference_crop: Tensor
    positive: Tensor
    negative: Tensor
    clicks: Tensor
    boxes: Tensor


class Sampler(Protocol):
    """Makes a step's training targets out of annotated images. Instances are pickled into loader processes."""

    def units(self, stage: Stage) -> int:
        """Return the number of units (groups or samples) in one step of `stage`."""

    def batches(self, stage: Stage, seed: int, step: int, parts: Sequence[range]) -> list[Batch]:
        """Make some units of one step.

        Args:
            stage: Gives the crop size and the number of units.
            seed: Seed of the stage. The same seed and step give the same units.
            step: Step within the stage, from 0.
            parts: Units to make, one range per batch, in ascending order.

        Returns:
            One batch per range.
        """


@dataclass(frozen=True)
class Part:
    """The part of each step that one process computes.

    Attributes:
        rank: Number of this process, from 0.
        processes: Number of processes of the run.
        accumulate: Number of batches that this process splits its part into; their gradients are added up.
    """

    rank: int = 0
    processes: int = 1
    accumulate: int = 1

    def ranges(self, units: int) -> list[range]:
        """Split the units of a step evenly.

        Args:
            units: Number of units of a whole step.

        Returns:
            The units of each batch of this process.

        Raises:
            DataError: If the units cannot be split evenly.

        Example:
            >>> Part(rank=1, processes=2, accumulate=2).ranges(8)
            [range(4, 6), range(6, 8)]
        """
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
    """One item per remaining step of a stage: the batches of that step for one process."""

    def __init__(self, sampler: Sampler, stage: Stage, seed: int, first_step: int, part: Part) -> None:
        """Describe the rest of a stage.

        Args:
            sampler: Makes the units.
            stage: The stage, with its length in steps.
            seed: Seed of the stage.
            first_step: Step of item 0; greater than 0 in a resumed run.
            part: The part of each step that is loaded.

        Raises:
            DataError: If a step cannot be split evenly into parts.
        """
        self._sampler = sampler
        self._stage = stage
        self._seed = seed
        self._first_step = first_step
        self._parts = part.ranges(sampler.units(stage))

    def __len__(self) -> int:
        return self._stage.steps - self._first_step

    def __getitem__(self, item: int) -> list[Batch]:
        return self._sampler.batches(self._stage, self._seed, self._first_step + item, self._parts)


def batch_loader(dataset: Batches, workers: int) -> DataLoader[list[Batch]]:
    """Load steps in order, ahead of time.

    Worker processes are spawned: OpenCV's thread pool deadlocks in a fork of a process that has used it.

    Args:
        dataset: The steps.
        workers: Number of loader processes; 0 loads in this process.
    """
    return DataLoader(
        dataset,
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_set_up_loader_process,
    )


def _set_up_loader_process(_worker: int) -> None:
    cv2.setNumThreads(1)
    # Ends the process without destroying torch's global objects, last of all its exit functions: now and then one of
    # them aborts the process, and torch then reports a loader process that was killed.
    Finalize(None, os._exit, args=(0,), exitpriority=-100)
