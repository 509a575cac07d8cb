"""`refcut run` as a process of its own, for tests that want all of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.support.recorded import REPOSITORY

START_LIMIT_S = 240


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(state_dir: Path, port: int, redis_url: str | None = None) -> subprocess.Popen[str]:
    """Start `refcut run` on a state folder; without `redis_url` it starts its own Redis."""
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
    """Wait until the web server answers. Fails with the log if the process ends."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        try:
            client.get("/health").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    pytest.fail("the web server did not come up")


STOP_LIMIT_S = 60


class RunningBackend:
    """`refcut run` on a state folder, with a client of its web server, until `stop`."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._start()

    def _start(self) -> None:
        port = free_port()
        self.process = start(self.state_dir, port)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90, trust_env=False)
        wait_until_up(self.client, self.process)
        self.wait_for_worker()
        self.output: list[str] = []
        # Its log is longer than a pipe: it would stand still if nobody read it.
        self._reader = threading.Thread(target=lambda: self.output.extend(self.process.stdout or ()))
        self._reader.start()

    def wait_for_worker(self) -> None:
        """Wait until a worker is ready: on a busy machine loading the model takes longer than a click waits."""
        deadline = time.monotonic() + START_LIMIT_S
        while self.client.get("/readyz").status_code != httpx.codes.OK:
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, "no worker is ready"
            time.sleep(0.1)

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal, if it runs, and wait until it has ended. `output` is then complete."""
        self.process.send_signal(signum)
        self.process.wait(STOP_LIMIT_S)
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.client.close()

    def restart(self) -> None:
        """Stop it and start it again on the same folder; `process` and `client` are new ones."""
        self.stop()
        self._start()

    def start_if_stopped(self) -> None:
        """Start it again if a test has ended it."""
        if self.process.poll() is not None:
            self._start()
