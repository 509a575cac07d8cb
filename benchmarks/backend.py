"""`refcut run` with the model that ships, and a Label Studio that only serves the demo photographs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from types import MappingProxyType

import httpx
import psutil
from redis import Redis

from benchmarks.stream import StreamClick
from refcut_backend.playground.demo import PHOTOGRAPHS
from refcut_backend.queue.heartbeats import WorkerState, living_workers
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis
from tests.support.recorded import LABEL_CONFIG, REPOSITORY
from tests.support.running_backend import free_port

ANSWERED = "answered"
LOST = "lost"
START_LIMIT_S = 300
PATIENCE_S = 100
"""Label Studio waits this long for an answer."""


class Photographs(SimpleHTTPRequestHandler):
    """Every upload's address leads to the demo photograph of that name."""

    def translate_path(self, path: str) -> str:
        """Return the demo photograph that an upload's address names."""
        return str(PHOTOGRAPHS / Path(path.partition("?")[0]).name)

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""
        pass


@dataclass(frozen=True)
class Outcome:
    """How one click ended. reason: `answered`, why it was not, or `lost` when no proper answer came at all.

    sent: `time.monotonic()`. version: of the model, as Label Studio is told.
    """

    reason: str
    sent: float
    seconds: float
    version: str = ""


@dataclass
class Backend:
    """A running backend.

    environment: what its commands need to find it. log: file with what it prints. label_config: sent with every click.
    new_annotators: numbers of annotators who have not clicked yet; a worker keeps the masks of clicks that were sent
    before.
    """

    process: subprocess.Popen[bytes]
    client: httpx.Client
    redis: Redis
    environment: Mapping[str, str]
    log: Path
    label_config: str = LABEL_CONFIG
    new_annotators: Iterator[int] = field(default_factory=count)

    def click(self, click: StreamClick) -> Outcome:
        """Sends a click as Label Studio does."""
        body = {
            "tasks": [{"id": click.task, "data": {"image": f"/data/upload/1/{click.photograph}.jpg"}}],
            "project": "1.1",
            "label_config": self.label_config,
            "params": {"context": {"result": list(click.dots)}},
        }
        sent = time.monotonic()
        reason, version = LOST, ""
        try:
            answer = self.client.post("/predict", json=body)
            if answer.status_code == 200 and len(answer.json()["results"]) == 1:
                reason = answer.headers.get("X-RefCut-Reason", ANSWERED)
                version = answer.json()["results"][0]["model_version"]
        except httpx.HTTPError:
            pass
        return Outcome(reason, sent, time.monotonic() - sent, version)

    def workers(self) -> list[WorkerState]:
        """Workers that have their model loaded."""
        return [worker for worker in living_workers(self.redis) if worker.ready]

    def worker_pids(self) -> list[int]:
        """Processes of the workers."""
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if "worker" in child.cmdline()]

    def memory_mb(self) -> float:
        """Resident memory of web server and workers, and what Redis holds."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        resident = sum(child.memory_info().rss for child in children)
        return float(resident + self.redis.info("memory")["used_memory"]) / 2**20


@contextmanager
def running_backend(
    workers: int = 1,
    click_timeout_s: int = 8,
    more: Mapping[str, str] = MappingProxyType({}),
    module: str = "refcut_backend",
    command: str = "run",
) -> Iterator[Backend]:
    """Ready for clicks: all workers have their model loaded. Its log goes to `refcut.log` in a folder that is removed.

    more: settings. module: what `python -m MODULE run` starts; `tests.support.fake_run` has workers without a model.
    command: `serve` starts the web server alone; workers is 0 then.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis())
        check_redis(redis.url)
        photographs = ThreadingHTTPServer(("127.0.0.1", 0), Photographs)
        stack.callback(photographs.server_close)
        threading.Thread(target=photographs.serve_forever, daemon=True).start()
        stack.callback(photographs.shutdown)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="refcut-benchmark-")))
        port = free_port()
        log = stack.enter_context((folder / "refcut.log").open("wb"))
        settings = {
            "REFCUT_PORT": str(port),
            "REFCUT_STATE_DIR": str(folder),
            "REFCUT_REDIS_URL": redis.url,
            "REFCUT_WORKERS": str(max(workers, 1)),
            "REFCUT_TRAINING_WORKER": "false",
            "REFCUT_CLICK_TIMEOUT_S": str(click_timeout_s),
            "FAKE_WORKER_LOG": str(folder / "computed"),
            **more,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", module, command],
            env=os.environ | settings,
            cwd=REPOSITORY,
            stdout=log,
            stderr=log,
        )
        stack.callback(_stop, process)
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=PATIENCE_S,
            trust_env=False,
            # Shorter than the server's five seconds: else a click may meet a connection that is being closed.
            limits=httpx.Limits(max_connections=None, keepalive_expiry=1.0),
        )
        backend = Backend(
            process,
            stack.enter_context(client),
            stack.enter_context(closing(connect_redis(redis.url))),
            os.environ | settings,
            folder / "refcut.log",
        )
        wait_until_ready(backend, workers)
        setup = {"project": "1.1", "schema": LABEL_CONFIG, "access_token": "none"}
        hostname = f"http://127.0.0.1:{photographs.server_port}"
        client.post("/setup", json=setup | {"hostname": hostname}).raise_for_status()
        yield backend


def wait_until_ready(backend: Backend, workers: int) -> None:
    """Wait until the web server answers and so many workers have their model loaded. Raise SystemExit if they do not."""
    deadline = time.monotonic() + START_LIMIT_S
    while len(backend.workers()) < workers or not _is_listening(backend.client):
        if backend.process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the backend did not start:\n{backend.log.read_text()}")
        time.sleep(0.1)


def _is_listening(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(60)
