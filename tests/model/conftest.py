"""Settings of the tests of `model`."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The networks here are tiny: on a busy machine two threads that wait for each other take forty times as long."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_handler_for_ended_children() -> Iterator[None]:
    """torch's DataLoader leaves a handler of SIGCHLD behind.

    Seen with Python 3.11.7 on an AMD EPYC: a child that ends after many loaders have come and gone then takes the whole
    test run with it (SIGSEGV from the kernel, si_code 128).
    """
    yield
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
