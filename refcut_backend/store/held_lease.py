"""Holds a lease for as long as something runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.store.leases import LeaseHolder

log = logging.getLogger("refcut.store")


@contextmanager
def held(
    holder: LeaseHolder, lasts_s: float, now: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[], bool]]:
    """Renews a lease that was just taken until the block ends, then gives it back; yields whether it has been lost.

    lasts_s: as the holder's. It counts as lost as soon as another process may have it: when nothing could be renewed for
    so long, as after a laptop's sleep.
    """
    stopped = threading.Event()
    state = {"renewed": now(), "taken": False}

    def renew() -> None:
        while not stopped.wait(lasts_s / 4):
            asked = now()
            try:
                if holder.hold():
                    state["renewed"] = asked
                else:
                    state["taken"] = True
            except SQLAlchemyError as error:
                log.warning("lease not renewed", extra={"problem": type(error).__name__})

    def is_lost() -> bool:
        return bool(state["taken"]) or now() - state["renewed"] > lasts_s

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield is_lost
    finally:
        stopped.set()
        thread.join()
        with suppress(SQLAlchemyError):
            holder.release()
