"""`refcut run`: starts Redis, workers and web server as children of one process, replaces dead ones, stops them in order.

Supervisor
  |- EmbeddedRedis        unless REFCUT_REDIS_URL is set
  |- WorkerPool           REFCUT_WORKERS slots, each with one worker process
  |- TrainingPool         the same for the training worker; it may fail without ending the rest
  |- `refcut serve`       the web server; its end is the end of everything
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import FrameType
from typing import TYPE_CHECKING

from model.checkpoints.version_folder import version_name
from refcut_backend.database.engine import open_database
from refcut_backend.errors import CANNOT_START, ConfigError, QueueUnavailableError, WorkersGivenUpError
from refcut_backend.queue.heartbeats import WorkerState, forget_worker, new_worker_name, ready_worker
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis, named_redis, stop_within
from refcut_backend.queue.rq_jobs import TRAINING_QUEUE
from refcut_backend.settings import Settings
from refcut_backend.training.process_priority import STOPS_WITHIN_S

if TYPE_CHECKING:
    from redis import Redis


log = logging.getLogger("refcut.run")


WORKER_COMMAND = (sys.executable, "-m", "refcut_backend", "worker")
FAILED_STARTS = 4


class RestartPolicy:
    """Decides when a dead worker is started again.

    A worker that had been ready is replaced at once, however often it dies. One that never gets ready is started again
    after 1, 2, 4, ... seconds, at most `FAILED_STARTS` times in a row.
    """

    def __init__(self) -> None:
        self._failed_starts = 0

    @property
    def is_given_up(self) -> bool:
        """Whether the worker has failed to start too often."""
        return self._failed_starts >= FAILED_STARTS

    def pause_after_death(self, had_been_ready: bool) -> float:
        """Record a death. Returns the seconds until the next start."""
        self._failed_starts = 0 if had_been_ready else self._failed_starts + 1
        return 0.0 if had_been_ready else float(2 ** (self._failed_starts - 1))


class WorkerSlot:
    """One worker process of a pool, and its replacement when it dies."""

    def __init__(self, start: Callable[[str], subprocess.Popen[bytes]], connection: Redis) -> None:
        self._start_process = start
        self._connection = connection
        self._policy = RestartPolicy()
        self._start_at = 0.0
        self._start()

    def _start(self) -> None:
        self._name = new_worker_name()
        self._process: subprocess.Popen[bytes] | None = self._start_process(self._name)
        self._ready: WorkerState | None = None

    @property
    def ready(self) -> WorkerState | None:
        """State of the worker since its model is loaded; None before."""
        return self._ready

    def check(self) -> None:
        """Replace a dead worker.

        Raises:
            WorkersGivenUpError: If the worker cannot start, or died too often before it was ready.
        """
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self._start()
            return
        status = self._process.poll()
        with suppress(QueueUnavailableError):
            self._ready = self._ready or ready_worker(self._connection, self._name)
            if status is not None:
                forget_worker(self._connection, self._name)
        if status is not None:
            self._replace(status)

    def _replace(self, status: int) -> None:
        self._process = None
        pause_s = self._policy.pause_after_death(self._ready is not None)
        if status == CANNOT_START:
            raise WorkersGivenUpError("a worker cannot start", hint="its log says why")
        if self._policy.is_given_up:
            raise WorkersGivenUpError(
                f"a worker died {FAILED_STARTS} times before it was ready, the last time with status {status}",
                hint="its log says why",
            )
        log.error("a worker died and is replaced", extra={"status": status, "pause_s": pause_s})
        self._start_at = time.monotonic() + pause_s

    def request_stop(self) -> None:
        """Send SIGTERM; the worker finishes its job first."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, limit_s: float) -> None:
        """Wait until the worker has ended; kill it after `limit_s` seconds."""
        if self._process is not None:
            stop_within(self._process, limit_s)


class WorkerPool:
    """A fixed number of worker slots on this machine."""

    def __init__(
        self,
        size: int,
        connection: Redis,
        environment: Mapping[str, str],
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        """Start the workers.

        Args:
            size: Number of slots.
            connection: Redis, where the workers write their heartbeats.
            environment: Environment variables of the workers.
            command: Starts a worker; `--name NAME` is appended.
        """

        def start(name: str) -> subprocess.Popen[bytes]:
            # In a session of its own, so that Ctrl-C reaches only the supervisor, which stops its children in order.
            return subprocess.Popen([*command, "--name", name], env=environment, start_new_session=True)

        self._slots = [WorkerSlot(start, connection) for _ in range(size)]

    def check(self) -> None:
        """Replace dead workers. Raises WorkersGivenUpError as `WorkerSlot.check` does."""
        for slot in self._slots:
            slot.check()

    def ready(self) -> WorkerState | None:
        """State of one ready worker; None while none is ready."""
        return next((slot.ready for slot in self._slots if slot.ready is not None), None)

    def stop(self, limit_s: float) -> None:
        """Let every worker finish its job; kill those that need more than `limit_s` seconds."""
        for slot in self._slots:
            slot.request_stop()
        deadline = time.monotonic() + limit_s
        for slot in self._slots:
            slot.wait(max(deadline - time.monotonic(), 0.1))


STOP_GRACE_S = 4
TRAINING_STOP_LIMIT_S = STOPS_WITHIN_S + 5
POLL_S = 0.2


class TrainingPool:
    """The pool of training workers. Clicks do not need it, so the supervisor continues without it if it fails."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool: WorkerPool | None = pool

    def check(self) -> None:
        """Replace dead workers; give the pool up if they cannot start."""
        if self._pool is None:
            return
        try:
            self._pool.check()
        except WorkersGivenUpError as error:
            log.error("no training until the next start", extra={"problem": str(error)})
            self._pool = None

    def stop(self, limit_s: float) -> None:
        """Have a running training store its state and return to the queue."""
        if self._pool is not None:
            self._pool.stop(limit_s)


class Supervisor:
    """Starts all children, replaces dead workers and a dead Redis, and stops everything at SIGINT or SIGTERM."""

    def __init__(self, settings: Settings, worker_command: Sequence[str] = WORKER_COMMAND) -> None:
        """Prepare a run.

        Args:
            settings: From the environment; the children inherit the environment.
            worker_command: Starts a worker.
        """
        self._settings = settings
        self._worker_command = worker_command
        self._stopping = False

    def run(self) -> int:
        """Run until a signal or a fatal failure. No child is left running afterwards.

        Returns:
            The exit status: 0 after a signal, 1 if the web server died.

        Raises:
            RefCutError: If something needed is missing, or the workers were given up.
            ModelError: If the model cannot be read.
        """
        self._check()
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._stop)
        with ExitStack() as stack:
            embedded = None if self._settings.redis_url else stack.enter_context(EmbeddedRedis())
            redis_url = embedded.url if embedded else str(self._settings.redis_url)
            check_redis(redis_url)
            environment = os.environ | {"REFCUT_REDIS_URL": redis_url}
            if embedded is not None:
                stack.enter_context(named_redis(self._settings.state_dir, redis_url))
            connection = stack.enter_context(connect_redis(redis_url))
            workers = WorkerPool(self._settings.workers, connection, environment, self._worker_command)
            stack.callback(workers.stop, self._stop_limit_s)
            trainers = TrainingPool(self._start_trainers(connection, environment))
            stack.callback(trainers.stop, TRAINING_STOP_LIMIT_S)
            server = self._start_server(environment)
            stack.callback(self._stop_server, server)
            print(self._greeting(), flush=True)
            return self._watch(server, workers, trainers, embedded)

    @property
    def _stop_limit_s(self) -> float:
        """Time for web server and workers to finish their clicks, each of which ends at its deadline."""
        return self._settings.click_timeout_s + STOP_GRACE_S

    def _check(self) -> None:
        open_database(self._settings.database).dispose()
        version_name(self._settings.model_dir)
        check_port_is_free(self._settings.host, self._settings.port)

    def _start_trainers(self, connection: Redis, environment: dict[str, str]) -> WorkerPool:
        command = [*self._worker_command, "--queues", TRAINING_QUEUE]
        return WorkerPool(int(self._settings.training_worker), connection, environment, command)

    def _start_server(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        # In a session of its own, so that Ctrl-C reaches only the supervisor, which stops its children in order.
        command = [sys.executable, "-m", "refcut_backend", "serve"]
        return subprocess.Popen(command, env=environment, start_new_session=True)

    def _stop_server(self, server: subprocess.Popen[bytes]) -> None:
        """Stops before the workers do: they still answer the clicks that it has accepted."""
        if server.poll() is None:
            server.terminate()
        stop_within(server, self._stop_limit_s)

    def _watch(
        self,
        server: subprocess.Popen[bytes],
        workers: WorkerPool,
        trainers: TrainingPool,
        embedded: EmbeddedRedis | None,
    ) -> int:
        is_announced = False
        while not self._stopping:
            if (status := server.poll()) is not None:
                log.error("the web server stopped", extra={"status": status})
                return 1
            if embedded is not None and embedded.start_again_if_dead():
                log.error("the embedded Redis died and is started again")
            workers.check()
            if not is_announced and (worker := workers.ready()) is not None:
                print(f"Ready for clicks; the model computes on {worker.device}.", flush=True)
                is_announced = True
            trainers.check()
            time.sleep(POLL_S)
        return 0

    def _stop(self, _signum: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _greeting(self) -> str:
        address = self._settings.local_address
        elsewhere = f"http://NAME:{self._settings.port} with the NAME that Label Studio knows this machine by"
        return "\n".join(
            [
                f"RefCut listens on {address}"
                + (
                    ", and on all other addresses of this machine"
                    if self._settings.listens_everywhere
                    else ""
                ),
                f"  model    {version_name(self._settings.model_dir)}",
                f"  device   {self._settings.device} (shown again when the model is loaded)",
                "  In Label Studio: Settings > Model > Connect Model, and enter",
                f"    Backend URL              {elsewhere if self._settings.listens_everywhere else address}",
                "    Interactive preannotations   on",
                "  Ctrl-C stops everything.",
            ]
        )


def check_port_is_free(host: str, port: int) -> None:
    """Raise ConfigError if the web server cannot listen on this address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror})", hint="stop what uses it, or set REFCUT_PORT"
        ) from None
