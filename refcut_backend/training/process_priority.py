"""Makes this process give way: clicks on the same machine never wait for a training."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("refcut.training")

NICENESS = 10
"""About a tenth of what a process that answers clicks gets when both want the processor. With less, a training that is
held up in the middle of a write would hold up whoever wants to write next.
"""
AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux groups processes by session it weighs the groups, and a process's own niceness only counts inside. The
group of a session that others are in, such as a terminal's, is left alone: they would wait, too."""
STOPS_WITHIN_S = 5.0
"""Longest time between SIGTERM and the end of a process that trains. A training looks at every step; some take longer."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def give_way(threads: int) -> int:
    """To be called before torch is imported. threads: of this process and its children, 0 = half of the processor's.

    Returns how many that are.
    """
    with suppress(OSError):
        os.nice(NICENESS)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            AUTOGROUP.write_text(str(NICENESS))
    threads = threads or max(len(os.sched_getaffinity(0)) // 2, 1)
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    return threads
