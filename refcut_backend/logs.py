"""Logging: one JSON line an event on stderr; what is logged is chosen where it is logged, never whole requests."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.json import JsonFormatter

INDISCREET = ("httpx", "httpcore")
"""They log whole addresses and headers: signed links and tokens, at INFO and DEBUG."""

_SECRETS = (
    # The query of an address: presigned addresses carry a signature there.
    (re.compile(r"\?[^\s\"'\\]*=[^\s\"'\\]*"), "?[query]"),
    # User and password in an address, as in redis://user:password@host.
    (re.compile(r"://[^/\s\"'@]*@"), "://[credentials]@"),
    # What an Authorization header carries; a digit tells it from "Basic authentication".
    (
        re.compile(r"\b(Token|Bearer|Basic)(\s+)(?=[\w.~+/=-]*\d)[\w.~+/=-]{8,}", re.IGNORECASE),
        r"\1\2[secret]",
    ),
)

_facts: ContextVar[dict[str, Any] | None] = ContextVar("facts_of_the_request_in_hand", default=None)


class SafeJsonFormatter(JsonFormatter):
    """JSON lines in which addresses lose their queries and credentials, whoever logged them."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = super().format(record)
        for pattern, instead in _SECRETS:
            line = pattern.sub(instead, line)
        return line


def set_up_logging() -> None:
    """Sends `refcut.*` at INFO and everything else at WARNING to stderr; INDISCREET stays so even if all else is
    turned up to find a fault."""
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
def gather_facts() -> Iterator[dict[str, Any]]:
    """Collects what `note` is told while a request is answered, on whatever thread: one log line tells it all."""
    facts: dict[str, Any] = {}
    token = _facts.set(facts)
    try:
        yield facts
    finally:
        _facts.reset(token)


def note(**facts: Any) -> None:
    """Adds to what the request in hand will be logged with; outside of a request nothing happens."""
    gathered = _facts.get()
    if gathered is not None:
        gathered.update(facts)
