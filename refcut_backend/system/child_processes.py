"""Child processes that never outlive the process that started them, whatever ends it (SIGKILL included).

    this program's own processes     `Lifeline.start` passes them the end of a pipe. The pipe closes when the parent ends,
                                     and `end_with_parent` then stops the child as SIGTERM does.
    other programs (Redis)           `start_bound` has the kernel kill them when the parent ends (Linux only).

Each child leads a session of its own: Ctrl-C in a terminal reaches only the parent, which stops its children in order.
Run as a script, this file binds itself to its parent and becomes another program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

LIFELINE = "REFCUT_LIFELINE_FD"
"""Environment variable with the pipe's file descriptor in a child."""
ENDS_WITHIN_S = 15.0
"""Time between the end of the parent and the end of a child that does not follow SIGTERM."""
PR_SET_PDEATHSIG = 1


class Lifeline:
    """A pipe that closes when this process ends."""

    def __init__(self) -> None:
        self._for_children, self._own = os.pipe()  # neither is inherited unless `start` passes it on

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a process of this program, whose main function must call `end_with_parent`.

        Args:
            command: Program and arguments.
            environment: Environment variables of the process.
            **options: As for `subprocess.Popen`.
        """
        return subprocess.Popen(
            command,
            env=dict(environment) | {LIFELINE: str(self._for_children)},
            pass_fds=(self._for_children,),
            start_new_session=True,
            **options,
        )


def end_with_parent(limit_s: float = ENDS_WITHIN_S) -> None:
    """Send this process SIGTERM when the process that started it has ended; does nothing without a lifeline.

    Args:
        limit_s: Seconds after which this process and its children are killed.
    """
    handle = os.environ.pop(LIFELINE, "")
    if handle and _is_pipe(int(handle)):
        watch = threading.Thread(
            target=_wait_and_end, args=(int(handle), limit_s), name="lifeline", daemon=True
        )
        watch.start()


def _is_pipe(handle: int) -> bool:
    """Whether a descriptor is a pipe. In a process that inherited only the variable it may be any file, or none."""
    try:
        return stat.S_ISFIFO(os.fstat(handle).st_mode)
    except OSError:
        return False


def _wait_and_end(handle: int, limit_s: float) -> None:
    os.read(handle, 1)  # nobody writes: it returns at the end of the parent
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(limit_s)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def start_bound(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start another program that the kernel kills when this process ends.

    The kernel counts the end of the calling thread as the end of the process: call it from one that lives as long.

    Args:
        command: Program and arguments.
        **options: As for `subprocess.Popen`.
    """
    binding = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    return subprocess.Popen([*binding, *command], start_new_session=True, **options)


def _become(parent: int, command: list[str]) -> None:
    with suppress(AttributeError):  # not on Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent has ended")
    os.execvp(command[0], command)


def stop_within(process: subprocess.Popen[bytes], limit_s: float) -> None:
    """Wait for a process that was told to stop; kill it after `limit_s` seconds, and what is left of its session."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(limit_s)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
