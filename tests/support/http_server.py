"""An application behind a real HTTP server, on a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.types import ASGIApp

from refcut_backend.api.connections import ConnectionLimits, server_options
from tests.support.running_backend import free_port

START_LIMIT_S = 60


@contextmanager
def serving(app: ASGIApp, limits: ConnectionLimits | None = None) -> Iterator[httpx.Client]:
    """A client of the running server."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=port,
            log_config=None,
            access_log=False,
            **server_options(limits or ConnectionLimits(500, 2**28)),
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not server.started:
            assert thread.is_alive(), "the server ended at its start"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
