"""Logging: one JSON line per event on stderr, without secrets.

Requests are never logged as a whole: the code that logs chooses the fields. As a second line of defence, `_SECRETS`
removes tokens, and queries and credentials of URLs.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from refcut_backend.label_studio.project_ids import STRIDE, project_name

INDISCREET = ("httpx", "httpcore")
"""Libraries that log whole URLs and headers, with signatures and tokens, at INFO and DEBUG."""

_SECRETS = (
    # The query of a URL: presigned URLs carry their signature there.
    (re.compile(r"\?[^\s\"'\\]*=[^\s\"'\\]*"), "?[query]"),
    # User and password in a URL, as in redis://user:password@host.
    (re.compile(r"://[^/\s\"'@]*@"), "://[credentials]@"),
    # The value of an Authorization header; it has a digit, unlike the words "Basic authentication".
    (
        re.compile(r"\b(Token|Bearer|Basic)(\s+)(?=[\w.~+/=-]*\d)[\w.~+/=-]{8,}", re.IGNORECASE),
        r"\1\2[secret]",
    ),
)

_fields: ContextVar[dict[str, Any] | None] = ContextVar("fields_of_the_current_request", default=None)


class SafeJsonFormatter(JsonFormatter):
    """Writes JSON lines without secrets, also for records of other libraries."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line."""
        project = getattr(record, "project", None)
        if isinstance(project, int) and project > STRIDE:
            record.project = project_name(project)
        return without_secrets(super().format(record))


def without_secrets(text: str) -> str:
    """Removes tokens, and queries and credentials of URLs, from a text that may come from another library."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def set_up_logging() -> None:
    """Send `refcut.*` from INFO on and everything else from WARNING on to stderr.

    `INDISCREET` stays at WARNING even if the root logger is set to a lower level to find a fault.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        SafeJsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger", "message": "event"},
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("refcut").setLevel(logging.INFO)
    for name in INDISCREET:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def collect_fields() -> Iterator[dict[str, Any]]:
    """Collect the fields that `note` adds while a request is answered, on any thread, for its one log line."""
    fields: dict[str, Any] = {}
    token = _fields.set(fields)
    try:
        yield fields
    finally:
        _fields.reset(token)


def note(**fields: Any) -> None:
    """Add fields to the log line of the current request; without a request, do nothing."""
    collected = _fields.get()
    if collected is not None:
        collected.update(fields)


class SeldomLog:
    """Logs an event that may come thousands of times per second: at most one line per interval, with their number."""

    def __init__(
        self, log: logging.Logger, interval_s: float = 60.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._interval_s = interval_s
        self._now = now
        self._lock = threading.Lock()
        self._times = 0
        self._last: float | None = None

    def warning(self, message: str, **fields: Any) -> None:
        """Log a warning, or count it for the next line. The field `times` is the number of events since the last line."""
        with self._lock:
            self._times += 1
            if self._last is not None and self._now() - self._last < self._interval_s:
                return
            times, self._times, self._last = self._times, 0, self._now()
        self._log.warning(message, extra=fields | {"times": times})
