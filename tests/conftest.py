"""Settings of all tests, and what runs beside what when pytest has several processes (`make test`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine must not fail a property: how long an example takes is a matter for benchmarks/.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = ["tests.support.backend_fixtures"]

TESTS = Path(__file__).parent
LONGEST_FIRST = ("end_to_end", "model/cli", "model/finetuning", "integration", "refcut_backend/cli")
"""Folders whose tests are handed out first, so that no process has a long file left when the others are done."""


def pytest_configure(config: pytest.Config) -> None:
    """Without pytest-xdist nothing else declares its marker."""
    config.addinivalue_line("markers", "xdist_group(name): tests that share something and run in one process")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, and all end-to-end tests: they share one Label Studio and one browser."""
    if config.getoption("numprocesses", None) is None and not hasattr(config, "workerinput"):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=_place)


def _group(item: pytest.Item) -> str:
    path = item.path.relative_to(TESTS)
    return path.parts[0] if path.parts[0] == "end_to_end" else path.with_suffix("").as_posix()


def _place(item: pytest.Item) -> int:
    """Where the item's folder stands in `LONGEST_FIRST`; the order within a folder stays."""
    path = item.path.relative_to(TESTS).as_posix()
    return next(
        (n for n, folder in enumerate(LONGEST_FIRST) if path.startswith(f"{folder}/")), len(LONGEST_FIRST)
    )
