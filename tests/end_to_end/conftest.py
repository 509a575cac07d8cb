"""One running demo for all end-to-end tests."""

from collections.abc import Iterator

import pytest

from tests.end_to_end.world import World, demo_world


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A running `refcut demo` and a signed-in browser.

    They end with this folder: while the browser is open, its event loop runs on the thread of the tests, and a later test
    could not start one of its own.
    """
    with demo_world(tmp_path_factory.mktemp("demo")) as world:
        yield world
