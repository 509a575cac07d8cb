"""Waits for calls that have no time limit of their own: name resolution, remote file systems, hung disks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NoAnswerError(Exception):
    """A call did not end in time. It may still be running."""


def answer_within(limit_s: float | None, call: Callable[[], T], name: str) -> T:
    """Runs a call on a thread of its own and waits for it at most `limit_s` seconds.

    Python cannot interrupt a call that hangs in the system, so the thread is left behind. It ends with the call, or with
    the process: it is a daemon.

    Args:
        limit_s: Longest wait in seconds; None waits as long as the call takes.
        call: What to run.
        name: Name of the thread, for whoever looks at a hung process.

    Returns:
        What the call returns.

    Raises:
        NoAnswerError: The call did not end in time.
        Exception: Whatever the call raises.
    """
    answer: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answer.put((call(), None))
        except Exception as error:
            answer.put((None, error))

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        result, error = answer.get(timeout=limit_s)
    except queue.Empty:
        raise NoAnswerError(f"no answer within {limit_s:g} s") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # it is the call's result where there is no error
