"""Processes that begin with everything imported, for tests of what several processes do at once."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext


def forking() -> ForkServerContext:
    """A context whose processes are forked from one that has no threads and has imported the backend already.

    With "spawn" each process imports it anew, which takes seconds of processor time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "tests.support.registry"])
    return context
