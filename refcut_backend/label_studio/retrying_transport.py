"""Tries again what a busy server asks to be tried again, while there is time."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    wait_exponential_jitter,
)

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
