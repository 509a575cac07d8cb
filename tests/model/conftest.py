"""Settings of the tests of `model`."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data._utils import signal_handling


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The networks here are tiny: on a busy machine two threads that wait for each other take forty times as long.

    Set for each test, because commands under test set their own number, and sums depend on it.
    """
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_chance() -> None:
    """Networks start from random weights: the same ones in whatever order tests run."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_handler_for_ended_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's DataLoader finds its handler of SIGCHLD installed and leaves out its own.

    Seen twice with Python 3.11.7 on an AMD EPYC, in processes that had run many tests: when a child ended, the kernel
    could not deliver the signal to a handler of Python (SIGSEGV, si_code 128, at an innocent instruction), and the
    process of the tests was gone without a word. Python's handlers run on the alternate stack where there is one, and
    pytest's faulthandler installs one; the product does not. What needs such a handler runs in a process of its own.
    """
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", True)
