from collections.abc import Iterator

import pytest

from tests.end_to_end.world import World, demo_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with demo_world(tmp_path_factory.mktemp("demo")) as world:
        yield world
