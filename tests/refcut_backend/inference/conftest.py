from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The networks here are tiny: on a busy machine two threads that wait for each other take forty times as long."""
    torch.set_num_threads(1)
