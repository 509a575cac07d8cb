"""`refcut run` as a process of its own, for tests that want all of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.recorded import REPOSITORY

START_LIMIT_S = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(state_dir: Path, port: int, redis_url: str | None = None) -> subprocess.Popen[str]:
    environment = os.environ | {
        "REFCUT_PORT": str(port),
        "REFCUT_STATE_DIR": str(state_dir),
        "REFCUT_CLICK_TIMEOUT_S": "60",
        "REFCUT_RUNTIME": "torch",
    }
    environment.pop("REFCUT_REDIS_URL", None)
    if redis_url is not None:
        environment["REFCUT_REDIS_URL"] = redis_url
    return subprocess.Popen(
        [sys.executable, "-m", "refcut_backend", "run"],
        env=environment,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until_up(client: httpx.Client, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        try:
            client.get("/health").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    pytest.fail("the web server did not come up")
