"""Runs `refcut doctor` for the status page, in a process of its own and of low priority.

Its checks load the model and read images, which this process must never do. The child ends with this process, and when
the browser goes away.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from anyio import CapacityLimiter, move_on_after
from anyio.to_thread import run_sync

from refcut_backend.system.child_processes import Lifeline, stop_within

COMMAND = ("nice", "-n", "19", sys.executable, "-m", "refcut_backend", "doctor", "--json")
LIMIT_S = 180.0
STOP_LIMIT_S = 2.0


class DoctorIsBusyError(Exception):
    """The checks are running already."""


class DoctorRuns:
    """Runs the checks, one run at a time.

    Args:
        command: Prints one JSON object per finding and line.
        limit_s: Longest time of a run; then it is ended.
    """

    def __init__(self, command: Sequence[str] = COMMAND, limit_s: float = LIMIT_S) -> None:
        self._command = command
        self._limit_s = limit_s
        self._lifeline = Lifeline()
        self._thread = CapacityLimiter(1)
        self._is_running = False

    def start(self) -> AsyncIterator[bytes]:
        """Starts the checks.

        Returns:
            The lines that they print, each as soon as it is there.

        Raises:
            DoctorIsBusyError: If they run already.
        """
        if self._is_running:
            raise DoctorIsBusyError
        return self._lines()

    async def _lines(self) -> AsyncIterator[bytes]:
        if self._is_running:
            return  # another request began between `start` and the first line
        process = self._lifeline.start(
            self._command,
            os.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        self._is_running = True
        output = process.stdout
        assert output is not None
        try:
            with move_on_after(self._limit_s):
                while line := await run_sync(output.readline, limiter=self._thread, abandon_on_cancel=True):
                    yield line
        finally:
            self._is_running = False
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            stop_within(process, STOP_LIMIT_S)
            output.close()
