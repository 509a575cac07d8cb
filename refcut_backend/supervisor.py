"""`refcut run`: embedded Redis, worker and web server as children of one process that stops all of them."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from types import FrameType

from model.version_folder import version_name
from refcut_backend.errors import CANNOT_START, ConfigError
from refcut_backend.jobs.redis_server import STOP_LIMIT_S, EmbeddedRedis, check_redis, stop_within
from refcut_backend.settings import Settings
from refcut_backend.store.database import open_database

log = logging.getLogger("refcut.run")

RESTART_PAUSE_S = 1.0
POLL_S = 0.2


class Supervisor:
    """Starts the children, replaces a worker that dies, and stops everything at SIGINT or SIGTERM."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = False
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def run(self) -> int:
        """Blocks until stopped. Returns the exit status: 0 after a signal, 1 when the web server died by itself
        or the worker cannot start (both have said why).

        Raises RefCutError or ModelError when something that is needed is missing: nothing is left running then.
        """
        self._check()
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._stop)
        with ExitStack() as stack:
            redis_url = self._settings.redis_url or stack.enter_context(EmbeddedRedis()).url
            check_redis(redis_url)
            environment = os.environ | {"REFCUT_REDIS_URL": redis_url}
            stack.callback(self._stop_children)
            self._start("worker", environment)
            self._start("serve", environment)
            print(self._greeting(), flush=True)
            return self._watch(environment)

    def _check(self) -> None:
        open_database(self._settings.database).dispose()
        version_name(self._settings.model_dir)
        check_port_is_free(self._settings.host, self._settings.port)

    def _start(self, command: str, environment: dict[str, str]) -> None:
        # A session of its own: Ctrl-C reaches only the supervisor, which then stops the children in order.
        self._children[command] = subprocess.Popen(
            [sys.executable, "-m", "refcut_backend", command], env=environment, start_new_session=True
        )

    def _watch(self, environment: dict[str, str]) -> int:
        while not self._stopping:
            if (status := self._children["serve"].poll()) is not None:
                log.error("the web server stopped", extra={"status": status})
                return 1
            if (status := self._children["worker"].poll()) is not None:
                if status == CANNOT_START:
                    return 1
                log.error("the worker died and is replaced", extra={"status": status})
                time.sleep(RESTART_PAUSE_S)
                self._start("worker", environment)
            time.sleep(POLL_S)
        return 0

    def _stop(self, _signum: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _stop_children(self) -> None:
        for child in reversed(self._children.values()):
            if child.poll() is None:
                child.terminate()
        for child in self._children.values():
            stop_within(child, STOP_LIMIT_S)

    def _greeting(self) -> str:
        address = f"http://{self._settings.host}:{self._settings.port}"
        return "\n".join(
            [
                f"RefCut listens on {address}",
                f"  model    {version_name(self._settings.model_dir)}",
                f"  device   {self._settings.device} (the worker says which one it found)",
                "  In Label Studio: Settings > Model > Connect Model, and enter",
                f"    Backend URL              {address}",
                "    Interactive preannotations   on",
                "  Ctrl-C stops everything.",
            ]
        )


def check_port_is_free(host: str, port: int) -> None:
    """Raises ConfigError when the web server could not listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror})", hint="stop what uses it, or set REFCUT_PORT"
        ) from None
