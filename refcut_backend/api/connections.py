"""Limits of connections, below HTTP: how many, the time and length of a header, the time for reading an answer.

uvicorn has no limit of these: connections that send half a header would take all file descriptors, and then nobody is
answered. Here the connection that has waited longest without a request makes room for a new one.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from refcut_backend.logs import SeldomLog

log = logging.getLogger("refcut.web")

MAX_CONNECTIONS = 500
DESCRIPTORS_PER_CONNECTION = 4
"""A connection may need one for itself and one for its body; the rest is for Redis, database, model store and logs."""
WANTED_DESCRIPTORS = 4096
EVENTS = "/events"
"""End of the paths of answers that have no end."""
BACKLOG = 128
"""Connections that are accepted at once, beyond the limit, before the first of them can be closed."""


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of one web server.

    Attributes:
        connections: Number of connections.
        request_bytes: Length of a request with header and framing; what the application refuses is much smaller.
        header_s: Time from the first byte of a request, or from the opening of a connection, to the end of the header.
        header_bytes: Length of a header.
        answer_s: Longest time for which a caller may leave an answer unread.
    """

    connections: int
    request_bytes: int
    header_s: float = 10.0
    header_bytes: int = 64 * 1024
    answer_s: float = 30.0


def connection_limits(request_max_bytes: int) -> ConnectionLimits:
    """Raise this process's number of file descriptors as far as it may, and derive its limits from that.

    Args:
        request_max_bytes: REFCUT_REQUEST_MAX_BYTES.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(WANTED_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    share = MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else soft // DESCRIPTORS_PER_CONNECTION
    return ConnectionLimits(min(MAX_CONNECTIONS, share), 2 * request_max_bytes + 2**20)


def server_options(limits: ConnectionLimits) -> dict[str, Any]:
    """The arguments of `uvicorn.Config` that make a server keep the limits."""
    protocol = type("LimitedConnection", (_Connection,), {"limits": limits, "idle": OrderedDict()})
    return {"http": protocol, "backlog": BACKLOG, "ws": "none"}


class _Connection(HttpToolsProtocol):
    """One connection. `server_options` makes a class of it for each server.

    Attributes:
        limits: The server's limits.
        idle: The server's connections without a request, the one that has waited longest first.
    """

    limits: ClassVar[ConnectionLimits]
    idle: ClassVar[OrderedDict[_Connection, None]]
    _refused: ClassVar[SeldomLog] = SeldomLog(log)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes a connection; makes room for it if there are too many."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._received = 0
        self._is_in_body = False
        self._header_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.connections:
            self._make_room()
        if not self.transport.is_closing():
            self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._header_arrived()
        self._stop_answer_timer()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Called when the server stops. An event stream would otherwise hold it up until the limit of its patience."""
        if not self._is_idle and self.scope["path"].endswith(EVENTS):
            self.transport.close()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Parses what has arrived; closes the connection if a header or a whole request is too long."""
        if self._is_idle and not self._is_in_body and self._header_timer is None:
            self._await_header()
        self._received += len(data)
        super().data_received(data)
        is_in_header = self._header_timer is not None
        if self._received > (self.limits.header_bytes if is_in_header else self.limits.request_bytes):
            self._close("a request is too long")

    def on_headers_complete(self) -> None:
        """Called by the parser: the request begins."""
        self._header_arrived()
        self._is_in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called by the parser: the request has ended, which may be after its answer if that is a refusal."""
        self._is_in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Called when the answer is complete: the connection waits for another request, or is closed."""
        super().on_response_complete()
        if not self.transport.is_closing() and self._is_idle:
            self.idle[self] = None

    def pause_writing(self) -> None:
        """Called by the transport while the caller does not read the answer."""
        super().pause_writing()
        self._answer_timer = self.loop.call_later(self.limits.answer_s, self._close, "an answer is not read")

    def resume_writing(self) -> None:
        """Called by the transport when the caller has read the answer."""
        super().resume_writing()
        self._stop_answer_timer()

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _await_header(self) -> None:
        self._received = 0
        self.idle[self] = None
        self._header_timer = self.loop.call_later(
            self.limits.header_s, self._close, "a header does not arrive"
        )

    def _header_arrived(self) -> None:
        self.idle.pop(self, None)
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_answer_timer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _make_room(self) -> None:
        """Closes the connection that has waited longest without a request; this one if all others have a request."""
        oldest = next(iter(self.idle), self)
        oldest._close("too many connections")

    def _close(self, reason: str) -> None:
        if self._received or len(self.connections) > self.limits.connections:
            self._refused.warning("connections are closed", problem=reason)
        # At once, and not only when the transport says so: several connections may come before that.
        self.connections.discard(self)
        self._header_arrived()
        self.transport.abort()
