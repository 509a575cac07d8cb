"""Settings of the tests of `model`."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch


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
def _no_handler_for_ended_children() -> Iterator[None]:
    """torch's DataLoader leaves one behind. Trainings take it away (`child_signal_restored`); this is for all others.

    Seen with Python 3.11.7 on an AMD EPYC, in a run of this whole folder: when a child ended, the kernel could not
    deliver the signal (SIGSEGV, si_code 128, at an innocent instruction). Python's handlers run on the alternate stack
    where there is one, and pytest's faulthandler installs one; the product does not.
    """
    yield
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
