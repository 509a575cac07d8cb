"""Leader election through a database row with an expiry time.

One of several processes holds the lease of a task and does the task. When it releases the lease, or dies and the lease
expires, another process takes over.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Engine, delete, or_, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from refcut_backend.database.tables import Lease


class LeaseHolder:
    """This process's access to one lease."""

    def __init__(
        self, engine: Engine, name: str, lasts_s: float, now: Callable[[], float] = time.time
    ) -> None:
        """Prepares the holder without taking the lease.

        Args:
            engine: The database.
            name: Name of the lease.
            lasts_s: Seconds after the last `hold` at which another process may take the lease.
            now: Clock in seconds since 1970, common to all processes.
        """
        self._engine = engine
        self._name = name
        self._lasts_s = lasts_s
        self._now = now
        self._holder = f"{socket.gethostname()[:50]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def hold(self) -> bool:
        """Takes or renews the lease. Returns False while another process holds it."""
        free = or_(Lease.holder == self._holder, Lease.expires_at < self._now())
        expires_at = self._now() + self._lasts_s
        try:
            with Session(self._engine) as session, session.begin():
                taken = session.execute(
                    update(Lease)
                    .where(Lease.name == self._name, free)
                    .values(holder=self._holder, expires_at=expires_at)
                )
                if taken.rowcount:  # type: ignore[attr-defined]
                    return True
                if session.get(Lease, self._name) is not None:
                    return False
                session.add(Lease(name=self._name, holder=self._holder, expires_at=expires_at))
        except IntegrityError:
            return False
        return True

    def release(self) -> None:
        """Releases the lease if this process holds it."""
        with Session(self._engine) as session, session.begin():
            session.execute(delete(Lease).where(Lease.name == self._name, Lease.holder == self._holder))


log = logging.getLogger("refcut.store")


@contextmanager
def held(
    holder: LeaseHolder, lasts_s: float, now: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[], bool]]:
    """Renews a lease in the background while the block runs, then releases it.

    Args:
        holder: Holder of a lease that was just taken.
        lasts_s: The holder's `lasts_s`.
        now: Monotonic clock in seconds.

    Yields:
        A function that returns whether the lease is lost. It is lost as soon as another process may hold it: if it could
        not be renewed for `lasts_s`, for example while a laptop slept.
    """
    stopped = threading.Event()
    state = {"renewed": now(), "taken": False}

    def renew() -> None:
        while not stopped.wait(lasts_s / 4):
            started = now()
            try:
                if holder.hold():
                    state["renewed"] = started
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
