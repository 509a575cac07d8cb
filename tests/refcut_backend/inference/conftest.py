from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The networks here are tiny: on a busy machine two threads that wait for each other take forty times as long.

    Set for each test, because commands under test set their own number, and sums depend on it.
    """
    torch.set_num_threads(1)
