from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.refcut_backend.training.world import World, open_world


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    """A connected project without annotations."""
    with open_world(tmp_path) as opened:
        yield opened
