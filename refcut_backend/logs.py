"""Logging: one JSON line an event on stderr; what is logged is chosen where it is logged, never whole requests."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

INDISCREET = ("httpx", "httpcore")
"""They log whole addresses and headers: signed links and tokens, at INFO and DEBUG."""


def set_up_logging() -> None:
    """Sends `refcut.*` at INFO and everything else at WARNING to stderr; INDISCREET stays so even if all else is
    turned up to find a fault."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
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
