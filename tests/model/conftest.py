"""Settings of the tests of `model`."""

from __future__ import annotations

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """pycocotools 2.0.11 decodes through an array protocol that numpy 2 calls outdated; it is not ours to change."""
    config.addinivalue_line(
        "filterwarnings", "ignore:__array__ implementation doesn't accept:DeprecationWarning"
    )


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The networks here are tiny: on a busy machine two threads that wait for each other take forty times as long."""
    torch.set_num_threads(1)
