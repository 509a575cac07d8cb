"""Several processes on one run (`torchrun`): each computes the gradient of its part of a step, all take the same step."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def child_signal_kept() -> Iterator[None]:
    """What SIGCHLD does is afterwards what it did before; to be put round everything that uses a DataLoader.

    The first DataLoader with workers installs a Python handler and leaves it there. It is of use only while loaders
    are, and runs at the end of every child that this process ever starts. A later loader has none: torch installs it
    once a process. That a worker has died is then found by the loader's own look every five seconds.

    Signals belong to the main thread; torch installs nothing in another one, and there is nothing to restore there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        # None: installed by something other than Python, which alone could install it again.
        if before is not None and signal.getsignal(signal.SIGCHLD) != before:
            signal.signal(signal.SIGCHLD, before)
