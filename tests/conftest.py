"""Settings of all tests, and what runs beside what when pytest has several processes (`make test`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.support.parallel_run import GroupScheduling

# A busy machine must not fail a property: how long an example takes is a matter for benchmarks/.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Set before anything loads torch: here several processes share two cores, and a thread of OpenMP that spins while it
# waits takes them from the process that it waits for (a first click: 3.4 s of processor time instead of 0.6).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Nor does a second thread help the tiny networks of the tests. What chooses its number of threads itself is not affected.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.support.backend_fixtures"]


@pytest.fixture(scope="session", autouse=True)
def _users_folder_for_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test finds a backend that runs outside the tests, and none announces one there."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("user-state")))
        yield


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that runs in the tests' own process logs to a stream that ends with the test."""
    root, ours = logging.getLogger(), logging.getLogger("refcut")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def pytest_configure(config: pytest.Config) -> None:
    """In the process that hands out the tests: check that groups stay together, and say which process died."""
    if config.getoption("numprocesses", None):
        from tests.support.parallel_run import DeadProcesses, GroupsStayTogether

        config.pluginmanager.register(GroupsStayTogether())
        config.pluginmanager.register(DeadProcesses(config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Whole groups of tests, not single ones."""
    from tests.support.parallel_run import GroupScheduling

    return GroupScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In one of several processes: the longest files first; the order within a file stays."""
    if hasattr(config, "workerinput"):
        from tests.support.parallel_run import place

        items.sort(key=lambda item: place(item.nodeid))
