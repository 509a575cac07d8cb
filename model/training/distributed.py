"""One training run in several processes (`torchrun`), with one step shared by all of them.

Each process computes the gradient of its part of a step; the gradients are averaged, so all processes take the same step.
Without `torchrun` a run is a single process, and all methods here do nothing.
"""

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
    """The processes of a run, seen from this one. A context manager that joins and leaves the process group.

    Attributes:
        rank: Number of this process, from 0. Process 0 alone writes files and shows a progress bar.
        count: Number of processes.
        local_rank: Number of this process on its machine; selects the GPU.

    Example:
        >>> with Processes() as processes:
        ...     processes.writes
        True
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Processes:
        """Read what `torchrun` has set; a single process without it."""
        return cls(*(int(os.environ.get(name, fallback)) for name, fallback in _VARIABLES))

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The GPU of this process, or the CPU on a machine without one."""
        if torch.cuda.is_available():
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")

    def __enter__(self) -> Self:
        if torch.cuda.is_available():
            torch.cuda.set_device(self.local_rank)
        if self.count > 1:
            distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.count > 1:
            distributed.destroy_process_group()

    def wait(self) -> None:
        """Wait until all processes have called this method."""
        if self.count > 1:
            distributed.barrier()

    def share_weights(self, module: nn.Module) -> None:
        """Give every process the weights and buffers of process 0."""
        if self.count > 1:
            for value in module.state_dict().values():
                distributed.broadcast(value, 0)

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over all processes, in place.

        Args:
            tensors: Float tensors on one device, of the same shapes in every process.
        """
        if self.count == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.count
        for tensor, mean in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


SINGLE_PROCESS = Processes()
_VARIABLES = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))


@contextmanager
def child_signal_restored() -> Iterator[None]:
    """Restore the handler of SIGCHLD on exit. Wrap everything that uses a DataLoader in it.

    The first DataLoader with workers installs a Python handler and never removes it. The handler is needed only while
    loaders exist, but it runs at the end of every child process that this process ever starts. Later loaders have no
    handler, because torch installs it once per process; they notice a dead worker by a check every five seconds.

    Signal handlers belong to the main thread. In another thread torch installs none, so there is none to restore.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        # None: a handler that was not installed by Python cannot be installed again from Python.
        if before is not None and signal.getsignal(signal.SIGCHLD) != before:
            signal.signal(signal.SIGCHLD, before)
