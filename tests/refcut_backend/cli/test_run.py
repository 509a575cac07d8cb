"""`refcut run` and `refcut serve` as processes: what they replace, how they stop, what they do without Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from refcut_backend.api.handlers import REASON_HEADER
from refcut_backend.cli.run import (
    FAILED_STARTS,
    STOP_SIGNALS,
    RestartPolicy,
    Supervisor,
    handle_stop_signals,
    stop_limit_s,
)
from refcut_backend.queue.heartbeats import WorkerState, living_workers
from refcut_backend.queue.redis import FILE, EmbeddedRedis, check_redis, connect_redis
from refcut_backend.queue.redis import STOP_LIMIT_S as REDIS_STOP_LIMIT_S
from refcut_backend.queue.rq_jobs import CLICK_QUEUE, TRAINING_QUEUE
from refcut_backend.settings import Settings
from refcut_backend.system import child_processes
from tests.support.recorded import LABEL_CONFIG, REPOSITORY, click_result
from tests.support.running_backend import free_port, wait_until_up
from tests.support.worker_farm import GENEROUS_S, wait_for

UNAVAILABLE_WITHIN_S = 1.0
USUAL_SIGNALS = ("env", "--default-signal=INT,HUP,TERM")
"""How programs are started: they must hear signals also where the suite ignores some, as under `nohup`."""
CLICK_WORKERS = "clicks,prelabel"
"""What the fake workers that answer clicks serve."""


SETUP = {"project": "1.1", "schema": LABEL_CONFIG, "hostname": "http://127.0.0.1:9", "access_token": "t"}


@dataclass
class Run:
    """A running program with a web server, and the folder with its state and its logs."""

    process: subprocess.Popen[str]
    client: httpx.Client
    folder: Path

    def click(self, order: str, click_id: str) -> httpx.Response:
        """A click whose label tells the fake model what to do."""
        body = {
            "tasks": [{"id": 1, "data": {"image": "/data/upload/1/a.jpg"}}],
            "project": "1.1",
            "label_config": LABEL_CONFIG.replace('"Door"', f'"{order}"'),
            "params": {"context": {"result": [click_result(click_id, 10, 20, order)]}},
        }
        return self.client.post("/predict", json=body)

    def computed(self) -> int:
        """How many clicks the fake workers have begun to compute."""
        log = self.folder / "computed"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def is_computing(self) -> bool:
        return self.computed() > 0

    def redis_url(self) -> str:
        """Address of the embedded Redis."""
        return (self.folder / FILE).read_text()

    def stop(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return self.process.wait(2 * GENEROUS_S)


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        check_redis(server.url)
        yield server


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def start(folder: Path, *module: str, **environment: str) -> subprocess.Popen[str]:
    wanted = {
        "REFCUT_STATE_DIR": str(folder),
        "REFCUT_CLICK_TIMEOUT_S": "30",
        "FAKE_WORKER_LOG": str(folder / "computed"),
    }
    with (folder / "stderr").open("w") as stderr:
        return subprocess.Popen(
            [*USUAL_SIGNALS, sys.executable, "-m", *module],
            env=os.environ | wanted | environment,
            cwd=REPOSITORY,
            stderr=stderr,
            text=True,
        )


@contextmanager
def running(folder: Path, *module: str, **environment: str) -> Iterator[Run]:
    port = environment.setdefault("REFCUT_PORT", str(free_port()))
    process = start(folder, *module, **environment)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=GENEROUS_S, trust_env=False) as client:
        run = Run(process, client, folder)
        try:
            wait_until_up(client, process)
            client.post("/setup", json=SETUP).raise_for_status()
            yield run
        finally:
            if process.poll() is None:
                run.stop()


@pytest.fixture
def started(tmp_path) -> Iterator[Callable[..., Run]]:
    """Starts programs; ends what is left of the last one."""
    with ExitStack() as stack:
        yield lambda *module, **environment: stack.enter_context(running(tmp_path, *module, **environment))


@pytest.fixture(scope="module")
def lasting(tmp_path_factory) -> Iterator[Run]:
    """One run for all tests that leave it as they found it: two workers, and no training worker."""
    wanted = {"REFCUT_WORKERS": "2", "REFCUT_TRAINING_WORKER": "false"}
    with running(tmp_path_factory.mktemp("lasting"), "tests.support.fake_run", **wanted) as run:
        yield run
        assert run.stop() == 0


def ready(url: str) -> list[WorkerState]:
    with connect_redis(url) as connection:
        return [w for w in living_workers(connection) if w.ready and CLICK_QUEUE in w.queues]


def pids_of_workers(run: Run) -> list[int]:
    children = psutil.Process(run.process.pid).children()
    commands = {child.pid: child.cmdline() for child in children}
    return [
        pid
        for pid, command in commands.items()
        if "tests.support.fake_worker" in command and TRAINING_QUEUE not in command
    ]


@pytest.mark.slow
def test_several_workers_are_started_and_a_killed_one_is_replaced(lasting):
    wait_for(lambda: len(ready(lasting.redis_url())) == 2, "both workers are ready")
    names = {worker.name for worker in ready(lasting.redis_url())}
    for pid in pids_of_workers(lasting):
        os.kill(pid, signal.SIGKILL)
        assert REASON_HEADER not in lasting.click("mask", f"{pid}").headers
    wait_for(lambda: len({w.name for w in ready(lasting.redis_url())} - names) == 2, "both are replaced")


@pytest.mark.slow
def test_the_caller_of_a_killed_worker_gets_worker_lost_and_the_next_click_a_mask(lasting, callers):
    wait_for(lambda: len(ready(lasting.redis_url())) == 2, "both workers are ready")
    before = lasting.computed()
    lost: Future[httpx.Response] = callers.submit(lasting.click, "sleep 20", "a")
    wait_for(lambda: lasting.computed() > before, "the click is in work")
    for pid in pids_of_workers(lasting):
        os.kill(pid, signal.SIGKILL)
    assert lost.result().headers[REASON_HEADER] == "worker_lost"
    assert REASON_HEADER not in lasting.click("mask", "b").headers


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_run_finishes_the_clicks_in_flight_and_leaves_nothing_behind(started, callers, signum):
    run = started("tests.support.fake_run")
    replies = [callers.submit(run.click, "sleep 1", click_id) for click_id in "ab"]
    wait_for(run.is_computing, "a click is in work")
    children = psutil.Process(run.process.pid).children(recursive=True)
    assert len(children) == 4
    assert run.stop(signum) == 0
    assert [REASON_HEADER in reply.result().headers for reply in replies] == [False] * 2
    assert [child for child in children if child.is_running()] == []


@pytest.mark.slow
def test_nothing_outlives_a_killed_run_and_the_next_one_starts_in_its_place(started, callers):
    run = started("tests.support.fake_run")
    callers.submit(run.click, "hang in C", "a")
    wait_for(run.is_computing, "a worker hangs")
    children = psutil.Process(run.process.pid).children(recursive=True)
    run.stop(signal.SIGKILL)
    # Only then, because the first one's web server may still answer for a moment and look like the second one.
    wait_for(lambda: not any(is_alive(child) for child in children), "nothing of the first is left")
    again = started("tests.support.fake_run", REFCUT_PORT=str(run.client.base_url.port))
    assert REASON_HEADER not in again.click("mask", "b").headers
    assert again.stop() == 0


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_second_run_on_one_state_folder_says_so_and_ends_and_the_first_goes_on(lasting, tmp_path):
    url = lasting.redis_url()
    same = {"REFCUT_STATE_DIR": str(lasting.folder), "REFCUT_PORT": str(free_port())}
    second = start(tmp_path, "tests.support.fake_run", **same)
    assert second.wait(GENEROUS_S) == 1
    (line,) = (tmp_path / "stderr").read_text().splitlines()
    assert line.startswith(
        f"refcut: another `refcut run` (process {lasting.process.pid}) uses this state folder"
    )
    assert lasting.redis_url() == url
    assert REASON_HEADER not in lasting.click("mask", "c").headers


@pytest.mark.slow
def test_a_long_tmpdir_and_a_state_folder_of_odd_signs_are_no_obstacle(started, tmp_path):
    state_dir, tmpdir = tmp_path / "state ?x#y%41", tmp_path / ("t" * 139)
    tmpdir.mkdir()
    run = started("tests.support.fake_run", TMPDIR=str(tmpdir), REFCUT_STATE_DIR=str(state_dir))
    assert REASON_HEADER not in run.click("mask", "a").headers
    assert (state_dir / "refcut.db").is_file()
    assert list(tmp_path.glob("**/*.db")) == [state_dir / "refcut.db"]
    assert state_dir.stat().st_mode & 0o077 == 0
    assert run.stop() == 0


def test_a_hangup_that_nohup_has_switched_off_stays_off():
    before = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        handle_stop_signals(lambda *_: None)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class DeafProcess:
    """A child that does not follow SIGTERM."""

    def poll(self) -> int | None:
        return None

    def terminate(self) -> None:
        pass


def test_the_limit_of_a_stop_is_the_sum_of_the_limits_of_all_that_is_stopped(
    redis_url, tmp_path, monkeypatch
):
    waited: list[float] = []
    monkeypatch.setattr(child_processes.Lifeline, "start", lambda *_arguments: DeafProcess())
    monkeypatch.setattr(
        "refcut_backend.cli.run.stop_within", lambda _process, limit_s: waited.append(limit_s)
    )
    monkeypatch.setattr("refcut_backend.cli.run.handle_stop_signals", lambda _handler: None)
    settings = Settings(redis_url=redis_url, state_dir=tmp_path, port=free_port(), workers=2)
    supervisor = Supervisor(settings)
    supervisor._stop(signal.SIGTERM, None)
    assert supervisor.run() == 0
    server_s, trainer_s, first_worker_s, _ = waited
    assert waited[3] <= first_worker_s
    redis_s = stop_limit_s(settings) - server_s - trainer_s - first_worker_s
    assert redis_s == pytest.approx(REDIS_STOP_LIMIT_S, abs=1.0)


@pytest.mark.slow
def test_sigterm_to_the_web_server_finishes_what_is_in_flight_and_takes_nothing_new(started, farm, callers):
    farm.start_worker()
    run = started("refcut_backend", "serve", REFCUT_REDIS_URL=farm.redis_url)
    in_flight = callers.submit(run.click, "sleep 3", "a")
    wait_for(run.is_computing, "the click is in work")
    run.process.send_signal(signal.SIGTERM)
    wait_for(lambda: refuses(run), "new connections are refused")
    assert not in_flight.done()
    assert REASON_HEADER not in in_flight.result().headers
    assert run.process.wait(GENEROUS_S) == 0


def refuses(run: Run) -> bool:
    try:
        httpx.get(f"{run.client.base_url}/livez", trust_env=False, timeout=GENEROUS_S)
    except httpx.ConnectError:
        return True
    return False


@pytest.mark.slow
def test_workers_that_crash_at_every_start_are_given_up_with_a_clear_line(tmp_path, server):
    process = start(
        tmp_path,
        "tests.support.fake_run",
        REFCUT_REDIS_URL=server.url,
        REFCUT_PORT=str(free_port()),
        FAKE_WORKER_CRASHES=CLICK_WORKERS,
    )
    assert process.wait(2 * GENEROUS_S) == 1
    errors = (tmp_path / "stderr").read_text()
    assert f"refcut: a worker died {FAILED_STARTS} times before it was ready" in errors.splitlines()[-1]
    assert errors.count("RuntimeError: crashes at every start") == FAILED_STARTS


def test_a_worker_that_had_been_ready_is_replaced_at_once_however_often_it_dies():
    policy = RestartPolicy()
    assert [policy.pause_after_death(had_been_ready=True) for _ in range(20)] == [0.0] * 20
    assert not policy.is_given_up


def test_pauses_between_failed_starts_grow_and_a_good_start_begins_anew():
    policy = RestartPolicy()
    assert [policy.pause_after_death(had_been_ready=False) for _ in range(3)] == [1.0, 2.0, 4.0]
    assert policy.pause_after_death(had_been_ready=True) == 0.0
    assert [policy.pause_after_death(had_been_ready=False) for _ in range(4)] == [1.0, 2.0, 4.0, 8.0]
    assert policy.is_given_up


@pytest.mark.slow
def test_an_embedded_redis_that_is_killed_is_replaced_and_clicks_go_on(lasting):
    assert REASON_HEADER not in lasting.click("mask", "d").headers
    (redis_server,) = [
        child
        for child in psutil.Process(lasting.process.pid).children()
        if "redis-server" in " ".join(child.cmdline())
    ]
    redis_server.kill()
    wait_for(lambda: REASON_HEADER not in lasting.click("mask", "e").headers, "clicks are answered again")


@pytest.mark.slow
def test_a_web_server_without_redis_lives_is_not_ready_and_recovers_without_a_restart(started, server):
    os.kill(server.pid, signal.SIGKILL)
    run = started("refcut_backend", "serve", REFCUT_REDIS_URL=server.url)
    assert run.client.get("/livez").status_code == 200
    assert run.client.get("/readyz").status_code == 503
    began = time.monotonic()
    assert run.click("mask", "a").headers[REASON_HEADER] == "unavailable"
    assert run.click("mask", "b").headers[REASON_HEADER] == "unavailable"
    assert time.monotonic() - began < 2 * UNAVAILABLE_WITHIN_S + 1
    wait_for(server.start_again_if_dead, "Redis is started again")
    check_redis(server.url)
    wait_for(lambda: run.client.get("/readyz").json()["redis"] == "up", "Redis is found")


@pytest.mark.slow
def test_a_full_queue_leaves_threads_for_everybody_else(started, server, callers):
    run = started(
        "refcut_backend",
        "serve",
        REFCUT_REDIS_URL=server.url,
        REFCUT_CLICK_QUEUE_LIMIT="60",
        REFCUT_CLICK_TIMEOUT_S="15",
    )
    with ThreadPoolExecutor(60) as many, connect_redis(server.url) as connection:
        waiting = [many.submit(run.click, "mask", f"{number}") for number in range(60)]
        wait_for(lambda: connection.llen("rq:queue:clicks") == 60, "all of them wait")
        assert run.client.get("/readyz").json()["redis"] == "up"
        assert run.click("mask", "one more").headers[REASON_HEADER] == "busy"
        assert not any(reply.done() for reply in waiting)


@pytest.mark.slow
def test_clicks_go_on_when_the_training_worker_cannot_start(started, server):
    run = started("tests.support.fake_run", REFCUT_REDIS_URL=server.url, FAKE_WORKER_CRASHES=TRAINING_QUEUE)
    wait_for(
        lambda: "no training until the next start" in (run.folder / "stderr").read_text(),
        "the training worker is given up",
        3 * GENEROUS_S,
    )
    assert REASON_HEADER not in run.click("mask", "a").headers
    assert run.stop() == 0


@pytest.mark.slow
def test_no_training_worker_is_started_where_none_is_wanted(lasting):
    wait_for(lambda: ready(lasting.redis_url()), "a worker is ready")
    commands = [child.cmdline() for child in psutil.Process(lasting.process.pid).children()]
    assert not [command for command in commands if TRAINING_QUEUE in command]
