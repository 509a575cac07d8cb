"""HTTP that connects only where it may: names are resolved here, checked, and the checked address is connected to.

A check of the address in a link would not do: a name can resolve to a machine of the inner network, can do so only the
second time it is asked, and a public server can redirect anywhere. httpcore asks its network backend for every
connection, whichever redirect led to it, so that is where the check is.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import httpcore
import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    wait_exponential_jitter,
)

from refcut_backend.errors import AddressRefusedError, TooLargeError
from refcut_backend.label_studio.allowed_hosts import AllowedHosts, is_metadata, is_public

Resolve = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """The IP addresses of a host. Raises OSError when there is none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Budget:
    """What one errand may cost in all, however many redirects and tries it takes."""

    def __init__(self, limit_s: float | None = None, max_bytes: int | None = None) -> None:
        self._ends = None if limit_s is None else time.monotonic() + limit_s
        self._max_bytes = max_bytes
        self._received = 0

    def time_left_s(self) -> float | None:
        """Seconds; None when there is no limit."""
        return None if self._ends is None else self._ends - time.monotonic()

    def within(self, timeout_s: float | None) -> float | None:
        """A timeout that ends with the budget. Raises httpcore.TimeoutException when nothing is left."""
        left = self.time_left_s()
        if left is None:
            return timeout_s
        if left <= 0:
            raise httpcore.ReadTimeout("no time is left")
        return left if timeout_s is None else min(timeout_s, left)

    def spend(self, received: int) -> None:
        """Raises TooLargeError when more bytes came than allowed."""
        self._received += received
        if self._max_bytes is not None and self._received > self._max_bytes:
            raise TooLargeError(f"more than {self._max_bytes} bytes were sent")


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to trusted hosts wherever they are, to others at public addresses only."""

    def __init__(self, allowed: AllowedHosts, budget: Budget, resolve: Resolve = resolve) -> None:
        self._allowed = allowed
        self._budget = budget
        self._resolve = resolve
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises AddressRefusedError before anything is sent to an address that is not allowed."""
        targets = self._resolved(host, port, timeout)
        if any(is_metadata(target) for target in targets):
            raise AddressRefusedError(
                f"{host} is where a cloud tells its machines their secrets",
                hint="no image is fetched from there",
            )
        if not self._allowed.trusts(host, port):
            _check(targets, host, port)
        for position, target in enumerate(targets):
            try:
                share = self._share(timeout, len(targets) - position)
                stream = self._sockets.connect_tcp(target, port, share, local_address, socket_options)
                return _BudgetedStream(stream, self._budget)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if position == len(targets) - 1:
                    raise
        raise httpcore.ConnectError(f"{host} has no address")

    def _share(self, timeout: float | None, targets: int) -> float | None:
        """Time for one of several addresses: one that swallows packets leaves some for the next."""
        left = self._budget.within(timeout)
        return None if left is None else left / targets

    def _resolved(self, host: str, port: int, timeout: float | None) -> list[str]:
        """The addresses of a host, looked up on a thread of its own: the system's resolver takes no deadline."""
        answer: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                answer.put(self._resolve(host, port))
            except Exception as error:
                answer.put(error)

        threading.Thread(target=look_up, name="dns", daemon=True).start()
        try:
            found = answer.get(timeout=self._budget.within(timeout))
        except queue.Empty:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from None
        if isinstance(found, (OSError, UnicodeError)):
            raise httpcore.ConnectError(f"{host} cannot be resolved") from None
        if isinstance(found, Exception):
            raise found
        return found


def _check(addresses: list[str], host: str, port: int) -> None:
    if not all(is_public(address) for address in addresses):
        raise AddressRefusedError(
            f"{host} port {port} lies in a private network",
            hint=f"add {host}:{port} to REFCUT_IMAGE_HOSTS if the backend may fetch images from it",
        )


class _BudgetedStream(httpcore.NetworkStream):
    """A connection on which every read and write ends with the budget: a server that sends a byte now and then
    cannot hold a worker."""

    def __init__(self, stream: httpcore.NetworkStream, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, self._budget.within(timeout))
        self._budget.spend(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._budget.within(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        encrypted = self._stream.start_tls(ssl_context, server_hostname, self._budget.within(timeout))
        return _BudgetedStream(encrypted, self._budget)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class GuardedTransport(httpx.HTTPTransport):
    """httpx's own transport over GuardedBackend. Proxies of the environment are not used: they would resolve names
    themselves."""

    def __init__(self, allowed: AllowedHosts, budget: Budget, resolve: Resolve = resolve) -> None:
        super().__init__(verify=_tls(), trust_env=False)
        # httpx 0.28 has no argument for httpcore's network backend; every test of a refused address passes here.
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls(), network_backend=GuardedBackend(allowed, budget, resolve)
        )


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Certificates as usual, SSL_CERT_FILE and SSL_CERT_DIR included."""
    return httpx.create_ssl_context()


TRIES = 3
BUSY = frozenset({429, 500, 502, 503, 504})

_backoff = wait_exponential_jitter(multiplier=0.2, max=5.0, jitter=0.2)


class RetryingTransport(httpx.BaseTransport):
    """Repeats a request after 429, after a server error, and when no connection comes about.

    A wait that would outlast the time left is not begun: whoever asked learns the outcome at once.

    time_left_s: seconds that a call may still take when it starts; None for no limit.
    """

    def __init__(self, inner: httpx.BaseTransport, time_left_s: Callable[[], float | None]) -> None:
        self._inner = inner
        self._time_left_s = time_left_s

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        limit_s = self._time_left_s()

        def is_over(state: RetryCallState) -> bool:
            spent_s = (state.seconds_since_start or 0.0) + state.upcoming_sleep
            return state.attempt_number >= TRIES or (limit_s is not None and spent_s >= limit_s)

        retrying = Retrying(
            retry=retry_if_result(_is_busy)
            | retry_if_exception_type((httpx.ConnectError, httpx.RemoteProtocolError)),
            wait=_wait_s,
            stop=is_over,
            before_sleep=_close,
            retry_error_callback=_last_outcome,
        )
        return retrying(self._inner.handle_request, request)

    def close(self) -> None:
        self._inner.close()


def _is_busy(response: httpx.Response) -> bool:
    return response.status_code in BUSY


def _wait_s(state: RetryCallState) -> float:
    asked = _retry_after_s(state)
    return _backoff(state) if asked is None else asked


def _retry_after_s(state: RetryCallState) -> float | None:
    """What a server asks for in seconds. A date is not read: it would compare two machines' clocks."""
    outcome = state.outcome
    if outcome is None or outcome.failed:
        return None
    asked = outcome.result().headers.get("Retry-After", "").strip()
    return float(asked) if asked.isascii() and asked.isdigit() else None


def _close(state: RetryCallState) -> None:
    if state.outcome is not None and not state.outcome.failed:
        state.outcome.result().close()


def _last_outcome(state: RetryCallState) -> httpx.Response:
    assert state.outcome is not None
    response: httpx.Response = state.outcome.result()
    return response
