"""`refcut run`: starts Redis, workers and web server as children of one process, replaces dead ones, stops them in order.

Supervisor
  |- locked_state         one run at a time on a state folder
  |- announced            other commands find this backend
  |- EmbeddedRedis        unless REFCUT_REDIS_URL is set
  |- WorkerPool           REFCUT_WORKERS slots, each with one worker process
  |- TrainingPool         the same for the training worker; it may fail without ending the rest
  |- `refcut serve`       the web server; its end is the end of everything
"""

from __future__ import annotations

import errno
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
from refcut_backend.cli.running_backends import announced
from refcut_backend.cli.state_lock import locked_state
from refcut_backend.database.engine import open_database
from refcut_backend.errors import CANNOT_START, ConfigError, QueueUnavailableError, WorkersGivenUpError
from refcut_backend.queue.heartbeats import WorkerState, forget_worker, new_worker_name, ready_worker
from refcut_backend.queue.redis import STOP_LIMIT_S as REDIS_STOP_LIMIT_S
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis, named_redis
from refcut_backend.queue.rq_jobs import TRAINING_QUEUE
from refcut_backend.settings import Settings
from refcut_backend.system.child_processes import ENDS_WITHIN_S, Lifeline, end_with_parent, stop_within
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
        lifeline: Lifeline,
        environment: Mapping[str, str],
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        """Start the workers.

        Args:
            size: Number of slots.
            connection: Redis, where the workers write their heartbeats.
            lifeline: Ends the workers if this process ends without stopping them.
            environment: Environment variables of the workers.
            command: Starts a worker; `--name NAME` is appended.
        """

        def start(name: str) -> subprocess.Popen[bytes]:
            return lifeline.start([*command, "--name", name], environment)

        self._slots = [WorkerSlot(start, connection) for _ in range(size)]

    def check(self) -> None:
        """Replace dead workers. Raises WorkersGivenUpError as `WorkerSlot.check` does."""
        for slot in self._slots:
            slot.check()

    def ready(self) -> WorkerState | None:
        """State of one ready worker; None while none is ready."""
        return next((slot.ready for slot in self._slots if slot.ready is not None), None)

    def request_stop(self) -> None:
        """Tell every worker to stop, without waiting."""
        for slot in self._slots:
            slot.request_stop()

    def stop(self, limit_s: float) -> None:
        """Let every worker finish its job; kill those that need more than `limit_s` seconds."""
        self.request_stop()
        deadline = time.monotonic() + limit_s
        for slot in self._slots:
            slot.wait(max(deadline - time.monotonic(), 0.1))


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a service manager, and a terminal that is closed."""
STOP_GRACE_S = 4
TRAINING_STOP_LIMIT_S = STOPS_WITHIN_S + 5
POLL_S = 0.2


def handle_stop_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Install a handler for `STOP_SIGNALS`. SIGHUP is ignored under nohup, and stays so."""
    for signum in STOP_SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, handler)


def click_stop_limit_s(settings: Settings) -> float:
    """Time for the web server, or for workers, to finish their clicks, each of which ends at its deadline."""
    return settings.click_timeout_s + STOP_GRACE_S


def stop_limit_s(settings: Settings) -> float:
    """Longest time that a stopped supervisor takes: the sum of the limits of what it stops one after another."""
    return 2 * click_stop_limit_s(settings) + TRAINING_STOP_LIMIT_S + REDIS_STOP_LIMIT_S


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

    def request_stop(self) -> None:
        """Tell the workers to stop, without waiting."""
        if self._pool is not None:
            self._pool.request_stop()

    def stop(self, limit_s: float) -> None:
        """Have a running training store its state and return to the queue."""
        if self._pool is not None:
            self._pool.stop(limit_s)


class Supervisor:
    """Starts all children, replaces dead workers and a dead Redis, and stops everything at SIGINT, SIGTERM or SIGHUP."""

    def __init__(self, settings: Settings, worker_command: Sequence[str] = WORKER_COMMAND) -> None:
        """Prepare a run.

        Args:
            settings: From the environment; the children inherit the environment.
            worker_command: Starts a worker.
        """
        self._settings = settings
        self._worker_command = worker_command
        self._lifeline = Lifeline()
        self._stopping = False

    def run(self) -> int:
        """Run until a signal or a fatal failure. No child is left running afterwards.

        Returns:
            The exit status: 0 after a signal, 1 if the web server died.

        Raises:
            RefCutError: If something needed is missing, or the workers were given up.
            ModelError: If the model cannot be read.
        """
        handle_stop_signals(self._stop)
        end_with_parent(stop_limit_s(self._settings))
        with ExitStack() as stack:
            was_killed = stack.enter_context(locked_state(self._settings.state_dir))
            self._check(ENDS_WITHIN_S if was_killed else 0.0)
            embedded = None if self._settings.redis_url else stack.enter_context(EmbeddedRedis())
            redis_url = embedded.url if embedded else str(self._settings.redis_url)
            check_redis(redis_url)
            environment = os.environ | {"REFCUT_REDIS_URL": redis_url}
            if embedded is not None:
                stack.enter_context(named_redis(self._settings.state_dir, redis_url))
            connection = stack.enter_context(connect_redis(redis_url))
            stack.enter_context(announced(self._settings))
            workers = WorkerPool(
                self._settings.workers, connection, self._lifeline, environment, self._worker_command
            )
            stack.callback(workers.stop, click_stop_limit_s(self._settings))
            trainers = TrainingPool(self._start_trainers(connection, environment))
            stack.callback(trainers.stop, TRAINING_STOP_LIMIT_S)
            server = self._start_server(environment)
            stack.callback(self._stop_server, server)
            stack.callback(trainers.request_stop)  # first: a training needs seconds to store its state
            print(self._greeting(), flush=True)
            return self._watch(server, workers, trainers, embedded)

    def _check(self, port_wait_s: float) -> None:
        open_database(self._settings.database).dispose()
        version_name(self._settings.model_dir)
        check_port_is_free(self._settings.host, self._settings.port, port_wait_s)

    def _start_trainers(self, connection: Redis, environment: dict[str, str]) -> WorkerPool:
        command = [*self._worker_command, "--queues", TRAINING_QUEUE]
        size = int(self._settings.training_worker)
        return WorkerPool(size, connection, self._lifeline, environment, command)

    def _start_server(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        return self._lifeline.start([sys.executable, "-m", "refcut_backend", "serve"], environment)

    def _stop_server(self, server: subprocess.Popen[bytes]) -> None:
        """Stops before the workers do: they still answer the clicks that it has accepted."""
        if server.poll() is None:
            server.terminate()
        stop_within(server, click_stop_limit_s(self._settings))

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


def check_port_is_free(host: str, port: int, wait_s: float = 0.0, *, setting: str = "REFCUT_PORT") -> None:
    """Check that a server can listen on this address.

    Args:
        host: Address or name.
        port: Port.
        wait_s: Seconds to wait for whoever listens there now, such as the children of a run that was killed.
        setting: Where the port comes from, for the error.

    Raises:
        ConfigError: If it cannot listen.
    """
    deadline = time.monotonic() + wait_s
    while (problem := _listening_problem(host, port)) is not None:
        if problem.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise ConfigError(
                f"cannot listen on {host} ({problem.strerror})",
                hint="REFCUT_HOST must be an address or a name of this machine; 0.0.0.0 stands for all",
            )
        if time.monotonic() >= deadline:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({problem.strerror})",
                hint=f"stop what uses the port, or choose another one with {setting}",
            )
        time.sleep(POLL_S)


def _listening_problem(host: str, port: int) -> OSError | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None
