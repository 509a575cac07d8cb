"""What runs beside what when pytest has several processes (`make test`): an order, a scheduler and a check of both."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

RUNNING_BACKEND = ("integration/test_first_light.py", "integration/test_ways_of_clicking.py")
"""Files that share the running backend of integration/conftest.py."""

LONGEST_FIRST = (
    "end_to_end",
    "model/training/test_distributed.py",
    "integration",
    "model/runtime",
    "model/cli",
    "model/training",
    "refcut_backend/cli",
    "refcut_backend/api/test_label_studio_ml.py",
    "refcut_backend/training",
    "model/finetuning",
)
"""Folders and files handed out first, so that no process has a long file left when the others are done."""


def group(test_id: str) -> str:
    """Name of the tests that run in one process with this one: its file, or more files that share something costly."""
    path = _path(test_id)
    if path.startswith("end_to_end/"):
        return "end_to_end"
    return RUNNING_BACKEND[0] if path in RUNNING_BACKEND else path


def place(test_id: str) -> int:
    """Where the first match stands in `LONGEST_FIRST`; what it does not name comes last."""
    path = group(test_id)
    found = (n for n, name in enumerate(LONGEST_FIRST) if path == name or path.startswith(f"{name}/"))
    return next(found, len(LONGEST_FIRST))


def _path(test_id: str) -> str:
    return test_id.split("::", 1)[0].removeprefix("tests/")


class GroupScheduling(LoadScopeScheduling):
    """Hands out whole groups, in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)

    def remove_node(self, node: WorkerController) -> str | None:
        """Take a process out that has ended, and return the test during which it died, if it did.

        xdist would run that test again, in the next process, which may die or hang of it, too.
        """
        units = self.assigned_work[node].values()
        died_in = next((test for unit in units for test, is_done in unit.items() if not is_done), None)
        if died_in is not None:
            self.assigned_work[node][group(died_in)][died_in] = True
        super().remove_node(node)
        return died_in


class DeadProcesses:
    """Says at once which process of a run died, how, and during which test: a run that hangs later never tells."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Write the exit status, negative after a signal."""
        if error:
            self._write(f"{node.gateway.id} ended with status {exit_status(node)}")

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str) -> None:
        """Write the test."""
        self._write(f"a process died during {crashitem}")

    def _write(self, line: str) -> None:
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\n{line}", red=True)


def exit_status(node: Any) -> int | None:
    """Return the exit status of a process that pytest has lost; None if it cannot be known."""
    process = getattr(getattr(node.gateway, "_io", None), "popen", None)
    if process is None:
        return None
    try:
        status: int = process.wait(5.0)
    except subprocess.TimeoutExpired:
        return None
    return status


class GroupsStayTogether:
    """Fails a run in which a group was split: everything that its tests share would silently start several times."""

    def __init__(self) -> None:
        self._processes: dict[str, set[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember which process ran the test. xdist itself reports the test during which a process died."""
        if hasattr(report, "worker_id"):
            self._processes.setdefault(group(report.nodeid), set()).add(report.worker_id)

    def split(self) -> list[str]:
        """The groups that ran in more than one process."""
        return [name for name, processes in self._processes.items() if len(processes) > 1]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run if there are any."""
        if self.split() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which."""
        for name in self.split():
            terminalreporter.write_line(f"ran in more than one process: {name}", red=True)
