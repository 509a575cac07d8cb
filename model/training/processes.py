"""Several processes on one run (`torchrun`): each computes the gradient of its part of a step, all take the same step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Processes:
    """This process among those of the run. Process 0 alone writes files and draws a progress bar."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Processes:
        """As `torchrun` set it up; a single process without it."""
        return cls(*(int(os.environ.get(name, fallback)) for name, fallback in _VARIABLES))

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def __enter__(self) -> Self:
        if self.count > 1:
            distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.count > 1:
            distributed.destroy_process_group()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def share_weights(self, module: nn.Module) -> None:
        """Gives every process the weights and buffers of process 0."""
        if self.count > 1:
            for value in module.state_dict().values():
                distributed.broadcast(value, 0)

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Replaces float tensors on one device, of the same shapes in every process, by their means over all."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.count
        for tensor, mean in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


ALONE = Processes()
_VARIABLES = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
