"""Children end with their parent, and so does what they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psutil
import pytest

from refcut_backend.system.child_processes import LIFELINE, end_with_parent, stop_within
from tests.support.recorded import REPOSITORY
from tests.support.worker_farm import GENEROUS_S, wait_for

PARENT_OF_A_FOREIGN_PROGRAM = """
import time
from refcut_backend.system.child_processes import start_bound
print(start_bound(["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""
DEAF_CHILD = """
import signal, subprocess, sys, time
from refcut_backend.system.child_processes import end_with_parent
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen(["sleep", "600"])
end_with_parent(limit_s=0.5)
print(grandchild.pid, flush=True)
time.sleep(600)
"""
PARENT_OF_A_DEAF_CHILD = f"""
import os, sys, time
from refcut_backend.system.child_processes import Lifeline
child = Lifeline().start([sys.executable, "-c", {DEAF_CHILD!r}], os.environ)
print(child.pid, flush=True)
time.sleep(600)
"""


class Started:
    """Processes of a test. What is left of them at its end is killed."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def start(self, *command: str, pids: int, **options: bool) -> tuple[subprocess.Popen[bytes], list[int]]:
        """Start a process that prints process ids, and wait for them."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, **options)
        assert process.stdout is not None
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        self._stack.callback(process.stdout.close)
        printed = [int(process.stdout.readline()) for _ in range(pids)]
        for pid in printed:
            self._stack.callback(kill, pid)
        return process, printed


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def started() -> Iterator[Started]:
    with ExitStack() as stack:
        yield Started(stack)


def name_of(pid: int) -> str:
    """Name of a running process; empty if it has ended."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.name())
    return ""


def test_another_program_ends_with_its_killed_parent(started):
    parent, (pid,) = started.start(sys.executable, "-c", PARENT_OF_A_FOREIGN_PROGRAM, pids=1)
    wait_for(lambda: name_of(pid) == "sleep", "it has become that program")
    parent.kill()
    wait_for(lambda: not name_of(pid), "it has ended")


def test_a_child_that_ignores_sigterm_ends_with_its_killed_parent_and_so_does_its_own_child(started):
    parent, pids = started.start(sys.executable, "-c", PARENT_OF_A_DEAF_CHILD, pids=2)
    assert all(map(name_of, pids))
    parent.kill()
    wait_for(lambda: not any(map(name_of, pids)), "both have ended")


def test_a_stopped_child_leaves_nothing_of_its_session_behind(started):
    shell, (pid,) = started.start("sh", "-c", "sleep 600 & echo $!", pids=1, start_new_session=True)
    stop_within(shell, GENEROUS_S)
    wait_for(lambda: not name_of(pid), "what it had started has ended")


def test_a_variable_without_the_pipe_that_it_names_is_not_followed(tmp_path, monkeypatch):
    with (tmp_path / "file").open("w") as file:
        for handle in (str(file.fileno()), "9999"):
            monkeypatch.setenv(LIFELINE, handle)
            end_with_parent()
            assert LIFELINE not in os.environ
    assert "lifeline" not in [thread.name for thread in threading.enumerate()]
