"""HTTP transports that connect only to allowed addresses, within limits of time and bytes, and that retry.

Host names are resolved and checked here, and the checked address is the one that is connected to. Checking the address
in a link would not be enough: a name can resolve to a machine of the inner network, or do so only the second time, and a
public server can redirect anywhere. httpcore calls its network backend for every connection, after every redirect, so
the check is there.
"""

from __future__ import annotations

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
from refcut_backend.system.deadlines import NoAnswerError, answer_within

Resolve = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """Returns the IP addresses of a host. Raises OSError if it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Budget:
    """Limits of time and bytes for one transfer, shared by all its redirects and retries."""

    def __init__(self, limit_s: float | None = None, max_bytes: int | None = None) -> None:
        """Starts the time. None stands for no limit of seconds or received bytes."""
        self._ends = None if limit_s is None else time.monotonic() + limit_s
        self._max_bytes = max_bytes
        self._received = 0

    def time_left_s(self) -> float | None:
        """Returns the seconds left; None if there is no limit."""
        return None if self._ends is None else self._ends - time.monotonic()

    def within(self, timeout_s: float | None) -> float | None:
        """Shortens a timeout in seconds to the time left. Raises httpcore.ReadTimeout if none is left."""
        left = self.time_left_s()
        if left is None:
            return timeout_s
        if left <= 0:
            raise httpcore.ReadTimeout("no time is left")
        return left if timeout_s is None else min(timeout_s, left)

    def spend(self, received: int) -> None:
        """Counts received bytes. Raises TooLargeError if they exceed the limit."""
        self._received += received
        if self._max_bytes is not None and self._received > self._max_bytes:
            raise TooLargeError(f"more than {self._max_bytes} bytes were sent")


class BudgetPerRequest(Budget):
    """A budget that begins anew with every request of a client, within a limit of time for all of them.

    A request is sent and its answer is read by one thread, so each thread has a budget of its own.
    """

    def __init__(self, limit_s: float, max_bytes: int, total_s: float | None = None) -> None:
        """Starts the time of all requests together.

        Args:
            limit_s: Longest time for one request in seconds, with its redirects, retries and answer.
            max_bytes: Longest answer.
            total_s: Longest time for all requests together; None for no limit.
        """
        super().__init__(total_s)
        self._limit_s = limit_s
        self._max_bytes_each = max_bytes
        self._threads = threading.local()

    def begin(self) -> None:
        """Begins the budget of this thread's next request."""
        self._threads.current = Budget(self._limit_s, self._max_bytes_each)

    @property
    def _current(self) -> Budget:
        if not hasattr(self._threads, "current"):
            self.begin()
        current: Budget = self._threads.current
        return current

    def time_left_s(self) -> float:
        """Returns the seconds left for the request."""
        total_s, own_s = super().time_left_s(), self._current.time_left_s()
        return min(s for s in (total_s, own_s) if s is not None)

    def within(self, timeout_s: float | None) -> float | None:
        """See `Budget`."""
        return self._current.within(super().within(timeout_s))

    def spend(self, received: int) -> None:
        """See `Budget`."""
        self._current.spend(received)


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to trusted hosts at any address, and to other hosts only at public addresses."""

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
        """Connects to a host; arguments are httpcore's.

        Raises:
            AddressRefusedError: An address of the host is not allowed. Nothing was sent.
            httpcore.ConnectError: The host has no address, or none accepts the connection.
        """
        targets = self._resolved(host, port, timeout)
        if any(is_metadata(target) for target in targets):
            raise AddressRefusedError(
                f"{host} is the metadata service of a cloud",
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
        """Returns the time for one of several addresses, so that an unresponsive one leaves time for the next."""
        left = self._budget.within(timeout)
        return None if left is None else left / targets

    def _resolved(self, host: str, port: int, timeout: float | None) -> list[str]:
        """Resolves a host on a separate thread, because the system's resolver has no timeout."""
        try:
            return answer_within(self._budget.within(timeout), lambda: self._resolve(host, port), "dns")
        except NoAnswerError:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from None
        except (OSError, UnicodeError):
            raise httpcore.ConnectError(f"{host} cannot be resolved") from None


def _check(addresses: list[str], host: str, port: int) -> None:
    if not all(is_public(address) for address in addresses):
        raise AddressRefusedError(
            f"{host} port {port} lies in a private network",
            hint=f"add {host}:{port} to REFCUT_IMAGE_HOSTS if the backend may fetch images from it",
        )


class _BudgetedStream(httpcore.NetworkStream):
    """A connection on which every read and write ends with the budget, so that a slow server cannot block a worker."""

    def __init__(self, stream: httpcore.NetworkStream, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Reads up to `max_bytes`, and counts them."""
        data = self._stream.read(max_bytes, self._budget.within(timeout))
        self._budget.spend(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Writes all of `buffer`."""
        self._stream.write(buffer, self._budget.within(timeout))

    def close(self) -> None:
        """Closes the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Starts TLS on the connection, with the same budget."""
        encrypted = self._stream.start_tls(ssl_context, server_hostname, self._budget.within(timeout))
        return _BudgetedStream(encrypted, self._budget)

    def get_extra_info(self, info: str) -> Any:
        """Returns httpcore's information about the connection."""
        return self._stream.get_extra_info(info)


class GuardedTransport(httpx.HTTPTransport):
    """The transport of httpx over GuardedBackend. It ignores proxies of the environment, which would resolve names."""

    def __init__(self, allowed: AllowedHosts, budget: Budget, resolve: Resolve = resolve) -> None:
        """Opens a connection pool whose connections follow `allowed` and `budget`."""
        super().__init__(verify=_tls(), trust_env=False)
        # httpx 0.28 has no argument for httpcore's network backend. Every test of a refused address depends on this.
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls(), network_backend=GuardedBackend(allowed, budget, resolve)
        )


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """The usual certificates of httpx, including SSL_CERT_FILE and SSL_CERT_DIR."""
    return httpx.create_ssl_context()


def refuse_compressed(response: httpx.Response) -> None:
    """Refuses an answer that would unpack to more bytes than were counted; an event hook of httpx.

    Raises:
        CompressedError: The answer is compressed although the request forbids it.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise CompressedError("the answer is compressed although the request forbids it")


class CompressedError(httpx.RequestError):
    """An answer is compressed although the request forbids it."""


TRIES = 3
BUSY = frozenset({429, 500, 502, 503, 504})

_backoff = wait_exponential_jitter(multiplier=0.2, max=5.0, jitter=0.2)


class RetryingTransport(httpx.BaseTransport):
    """Retries a request after 429, after a server error, and after a failed or broken connection.

    It does not begin a wait that would exceed the time left, so the caller gets the last outcome at once. httpx-retries
    cannot do that: its limit counts only pauses, not requests, and it shortens the last pause instead of giving up. It
    would also obey a Retry-After date, which compares two machines' clocks.
    """

    def __init__(self, inner: httpx.BaseTransport, time_left_s: Callable[[], float | None]) -> None:
        """Wraps a transport.

        Args:
            inner: Sends the requests.
            time_left_s: Called at the start of a request; returns the seconds it may take, None for no limit.
        """
        self._inner = inner
        self._time_left_s = time_left_s

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request up to TRIES times; returns the last response or raises the last error."""
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
        """Closes the wrapped transport."""
        self._inner.close()


def _is_busy(response: httpx.Response) -> bool:
    return response.status_code in BUSY


def _wait_s(state: RetryCallState) -> float:
    retry_after_s = _retry_after_s(state)
    return _backoff(state) if retry_after_s is None else retry_after_s


def _retry_after_s(state: RetryCallState) -> float | None:
    """Reads Retry-After in seconds. A date is ignored, because it would compare two machines' clocks."""
    outcome = state.outcome
    if outcome is None or outcome.failed:
        return None
    value = outcome.result().headers.get("Retry-After", "").strip()
    return float(value) if value.isascii() and value.isdigit() else None


def _close(state: RetryCallState) -> None:
    if state.outcome is not None and not state.outcome.failed:
        state.outcome.result().close()


def _last_outcome(state: RetryCallState) -> httpx.Response:
    assert state.outcome is not None
    response: httpx.Response = state.outcome.result()
    return response
