"""`refcut run`: embedded Redis, workers and web server as children of one process that stops all of them."""

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

from redis import Redis

from model.checkpoints.version_folder import version_name
from refcut_backend.database.engine import open_database
from refcut_backend.errors import CANNOT_START, ConfigError, QueueUnavailableError, WorkersGivenUpError
from refcut_backend.queue.heartbeats import WorkerState, forget_worker, new_worker_name, ready_worker
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis, named_redis, stop_within
from refcut_backend.queue.rq_jobs import TRAINING_QUEUE
from refcut_backend.settings import Settings
from refcut_backend.training.process_priority import STOPS_WITHIN_S

log = logging.getLogger("refcut.run")


WORKER_COMMAND = (sys.executable, "-m", "refcut_backend", "worker")
FAILED_STARTS = 4


class RestartPolicy:
    """When to start a worker again. One that had been ready is replaced at once, however often it dies; one that never
    gets ready is tried after 1, 2, 4, ... seconds, a few times in a row.
    """

    def __init__(self) -> None:
        self._failed_starts = 0

    @property
    def is_given_up(self) -> bool:
        """Whether another try would be in vain."""
        return self._failed_starts >= FAILED_STARTS

    def pause_after_death(self, had_been_ready: bool) -> float:
        """Seconds until the next start."""
        self._failed_starts = 0 if had_been_ready else self._failed_starts + 1
        return 0.0 if had_been_ready else float(2 ** (self._failed_starts - 1))


class WorkerSlot:
    """One place in the crew and whoever fills it."""

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
        """What the worker said when it had its model loaded; None until then."""
        return self._ready

    def check(self) -> None:
        """Replaces a dead worker. Raises WorkersGivenUpError when that is in vain."""
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
            raise WorkersGivenUpError("a worker cannot start", hint="it has said why")
        if self._policy.is_given_up:
            raise WorkersGivenUpError(
                f"a worker died {FAILED_STARTS} times before it was ready, the last time with status {status}",
                hint="its log says why",
            )
        log.error("a worker died and is replaced", extra={"status": status, "pause_s": pause_s})
        self._start_at = time.monotonic() + pause_s

    def tell_to_stop(self) -> None:
        """SIGTERM: the job in hand is finished first."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, limit_s: float) -> None:
        """Until the worker has ended; it is killed at the limit."""
        if self._process is not None:
            stop_within(self._process, limit_s)


class WorkerPool:
    """All workers of this machine."""

    def __init__(
        self,
        size: int,
        connection: Redis,
        environment: Mapping[str, str],
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        def start(name: str) -> subprocess.Popen[bytes]:
            # A session of its own: Ctrl-C reaches only the supervisor, which then stops the children in order.
            return subprocess.Popen([*command, "--name", name], env=environment, start_new_session=True)

        self._places = [WorkerSlot(start, connection) for _ in range(size)]

    def check(self) -> None:
        """Replaces whoever died. Raises WorkersGivenUpError when a worker does not even get ready."""
        for place in self._places:
            place.check()

    def ready(self) -> WorkerState | None:
        """A worker that takes clicks, if there is one."""
        return next((place.ready for place in self._places if place.ready is not None), None)

    def stop(self, limit_s: float) -> None:
        """Lets every worker finish its job, and kills those that take longer."""
        for place in self._places:
            place.tell_to_stop()
        deadline = time.monotonic() + limit_s
        for place in self._places:
            place.wait(max(deadline - time.monotonic(), 0.1))


STOP_GRACE_S = 4
TRAINING_STOP_LIMIT_S = STOPS_WITHIN_S + 5
POLL_S = 0.2


class TrainingPool:
    """The workers that train: without them clicks go on, so giving them up ends nothing."""

    def __init__(self, crew: WorkerPool) -> None:
        self._crew: WorkerPool | None = crew

    def check(self) -> None:
        """Replaces whoever died."""
        if self._crew is None:
            return
        try:
            self._crew.check()
        except WorkersGivenUpError as error:
            log.error("nothing is trained until the next start", extra={"problem": str(error)})
            self._crew = None

    def stop(self, limit_s: float) -> None:
        """Has a training stored and put back."""
        if self._crew is not None:
            self._crew.stop(limit_s)


class Supervisor:
    """Starts the children, replaces what may be replaced, and stops everything at SIGINT or SIGTERM.

    worker_command: what starts a worker.
    """

    def __init__(self, settings: Settings, worker_command: Sequence[str] = WORKER_COMMAND) -> None:
        self._settings = settings
        self._worker_command = worker_command
        self._stopping = False

    def run(self) -> int:
        """Blocks until stopped. Returns the exit status: 0 after a signal, 1 when the web server died by itself.

        Raises RefCutError or ModelError when something that is needed is missing or the workers are given up: nothing
        is left running then.
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
            crew = WorkerPool(self._settings.workers, connection, environment, self._worker_command)
            stack.callback(crew.stop, self._stop_limit_s)
            trainers = TrainingPool(self._start_trainers(connection, environment))
            stack.callback(trainers.stop, TRAINING_STOP_LIMIT_S)
            server = self._start_server(environment)
            stack.callback(self._stop_server, server)
            print(self._greeting(), flush=True)
            return self._watch(server, crew, trainers, embedded)

    @property
    def _stop_limit_s(self) -> float:
        """The web server, then the workers, finish what is in flight; no click takes longer than its deadline."""
        return self._settings.click_timeout_s + STOP_GRACE_S

    def _check(self) -> None:
        open_database(self._settings.database).dispose()
        version_name(self._settings.model_dir)
        check_port_is_free(self._settings.host, self._settings.port)

    def _start_trainers(self, connection: Redis, environment: dict[str, str]) -> WorkerPool:
        command = [*self._worker_command, "--queues", TRAINING_QUEUE]
        return WorkerPool(int(self._settings.training_worker), connection, environment, command)

    def _start_server(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches only the supervisor, which then stops the children in order.
        command = [sys.executable, "-m", "refcut_backend", "serve"]
        return subprocess.Popen(command, env=environment, start_new_session=True)

    def _stop_server(self, server: subprocess.Popen[bytes]) -> None:
        """First of all: the workers are still there for the clicks that it has taken."""
        if server.poll() is None:
            server.terminate()
        stop_within(server, self._stop_limit_s)

    def _watch(
        self,
        server: subprocess.Popen[bytes],
        crew: WorkerPool,
        trainers: TrainingPool,
        embedded: EmbeddedRedis | None,
    ) -> int:
        is_told = False
        while not self._stopping:
            if (status := server.poll()) is not None:
                log.error("the web server stopped", extra={"status": status})
                return 1
            if embedded is not None and embedded.start_again_if_dead():
                log.error("the embedded Redis died and is started again")
            crew.check()
            if not is_told and (worker := crew.ready()) is not None:
                print(f"Ready for clicks; the model computes on {worker.device}.", flush=True)
                is_told = True
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
                f"  device   {self._settings.device}; which one that is, is said when the model is loaded",
                "  In Label Studio: Settings > Model > Connect Model, and enter",
                f"    Backend URL              {elsewhere if self._settings.listens_everywhere else address}",
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
