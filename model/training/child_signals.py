"""Lets a process be as it was once its loaders are done: torch leaves a handler of ended children behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def child_signal_kept() -> Iterator[None]:
    """What SIGCHLD does is afterwards what it did before; to be put round everything that uses a DataLoader.

    The first DataLoader with workers installs a Python handler and leaves it there. It is of use only while loaders
    are, and runs at the end of every child that this process ever starts. A later loader has none: torch installs it
    once a process. That a worker has died is then found by the loader's own look every five seconds.

    Signals belong to the main thread; torch installs nothing in another one, and there is nothing to restore there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        # None: installed by something other than Python, which alone could install it again.
        if before is not None and signal.getsignal(signal.SIGCHLD) != before:
            signal.signal(signal.SIGCHLD, before)
