"""Sends odd requests to the web server's routes: `python -m benchmarks.fuzz_requests [--requests 10000] [--seed 0]`.

Requests as Label Studio sends them, with random faults: other values and types, missing and repeated parts, broken bytes.
They go to the routes with a real database, SQLite and PostgreSQL (if it is installed), and a queue that answers at once.
Ends with status 1 if a request is answered with 5xx, or if the log has a traceback.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from benchmarks.report import print_table
from refcut_backend.api.app import create_app
from tests.support.fake_wiring import FakeQueue, wiring_on
from tests.support.fuzzed_requests import faults_of, fuzzed_requests
from tests.support.postgresql import running_postgresql

LIMIT_BYTES = 64 * 2**20
SHOWN = 20


class _Tracebacks(logging.Handler):
    """Keeps the tracebacks of log lines."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


def fuzz(url: str | None, requests: int, seed: int) -> tuple[float, list[str]]:
    """Send the requests to a server on a database. Return seconds, and what went wrong."""
    tracebacks = _Tracebacks()
    logging.getLogger().addHandler(tracebacks)
    with tempfile.TemporaryDirectory() as folder, wiring_on(Path(folder), FakeQueue(), url=url) as wiring:
        app = create_app(wiring, LIMIT_BYTES)
        with TestClient(app, raise_server_exceptions=False) as client:
            started = time.monotonic()
            faults = faults_of(client, fuzzed_requests(requests, seed))
            seconds = time.monotonic() - started
    logging.getLogger().removeHandler(tracebacks)
    return seconds, faults + tracebacks.found


def main() -> int:
    """Run it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows, wrong = [], []
    with ExitStack() as stack:
        databases: dict[str, str | None] = {"SQLite": None}
        try:
            databases["PostgreSQL"] = stack.enter_context(running_postgresql())
        except pytest.skip.Exception as reason:
            print(f"without PostgreSQL: {reason}", file=sys.stderr)
        for name, url in databases.items():
            seconds, faults = fuzz(url, arguments.requests, arguments.seed)
            rows.append([name, str(arguments.requests), f"{seconds:.0f}", str(len(faults))])
            wrong += [f"{name}: {fault}" for fault in faults]
    print_table(["database", "requests", "seconds", "faults"], rows)
    for fault in wrong[:SHOWN]:
        print(fault, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
