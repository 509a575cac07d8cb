"""Lowers the priority of a training process, so that clicks on the same machine are not slowed down."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from refcut_backend.system.cores import usable_cores

log = logging.getLogger("refcut.training")

NICENESS = 10
"""With this niceness a training gets about a tenth of the processor time of a click worker when both want it. With less,
a training that is interrupted during a write to the database would block other writers for too long."""
AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux groups processes by session, it weighs the groups, and niceness only counts within one. The group of a
session with other processes, such as that of a terminal, is not changed, because they would be slowed down too."""
STOPS_WITHIN_S = 5.0
"""Longest time between SIGTERM and the end of a training process, even if a training step takes longer."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def lower_priority(threads: int) -> int:
    """Lower the priority of this process and its children. Call it before torch is imported.

    Args:
        threads: Number of processor threads; 0 for half of the available cores.

    Returns:
        The number of threads.
    """
    with suppress(OSError):
        os.nice(NICENESS)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            AUTOGROUP.write_text(str(NICENESS))
    threads = threads or max(usable_cores() // 2, 1)
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    return threads
