"""What a click costs besides the network: `python -m benchmarks.request_overhead [--rounds N]`.

Web server, real Redis and a worker in processes of their own, the network replaced by one that costs nothing: HTTP, the
queue, an image that the worker has already seen, reference look-up, the mask in full size, RLE and JSON. Medians of what
the caller waits, and means of the processor time that each process takes, which other work on the machine distorts less;
the first click on an image is thrown away.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from refcut_backend.queue.redis import EmbeddedRedis, check_redis

REPOSITORY = Path(__file__).parents[1]
LABEL_CONFIG = (REPOSITORY / "label_config" / "clicks_brush.xml").read_text()
PHOTOGRAPH = REPOSITORY / "label_studio_demo" / "car_parts_te66.jpg"
SIZES = {"2 MP": (1600, 1200), "12 MP": (4000, 3000)}
START_LIMIT_S = 180


class Photographs(BaseHTTPRequestHandler):
    """The photograph in every size, as Label Studio serves uploads."""

    files: dict[str, bytes] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        """Serve the photograph whose name is in the path."""
        name = next((name for name in self.files if name in self.path), None)
        self.send_response(200 if name else 404)
        self.end_headers()
        self.wfile.write(self.files[name] if name else b"")

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""
        pass


def photograph(width: int, height: int) -> bytes:
    """Return the demo photograph as a JPEG of this size in pixels."""
    data = io.BytesIO()
    Image.open(PHOTOGRAPH).resize((width, height)).save(data, "JPEG", quality=85)
    return data.getvalue()


@contextmanager
def label_studio() -> Iterator[str]:
    """The address of a server that has the photographs."""
    Photographs.files = {f"{width}x{height}": photograph(width, height) for width, height in SIZES.values()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Photographs)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


class Backend:
    """Web server and worker, whose log lines are kept by the id of their request."""

    def __init__(self, folder: str, redis_url: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {"PORT": str(port), "STATE_DIR": folder, "CLICK_TIMEOUT_S": "60", "REDIS_URL": redis_url}
        environment = os.environ | {f"REFCUT_{name}": value for name, value in settings.items()}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "refcut_backend", "serve"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker_without_network"], env=environment
        )
        self._processes: dict[str, subprocess.Popen[Any]] = {"server": self._server, "worker": self._worker}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90, trust_env=False)
        self._lines: dict[str, dict[str, Any]] = {}
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._server.stderr is not None
        for line in self._server.stderr:
            facts = json.loads(line) if line.startswith("{") else {}
            with self._arrived:
                self._lines[facts.get("id", "")] = facts
                self._arrived.notify_all()

    def line(self, request_id: str) -> dict[str, Any]:
        """What was logged of a request."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: request_id in self._lines, 30)
            return self._lines[request_id]

    def connect(self, hostname: str) -> None:
        """Wait until the backend is ready, then connect a project to it as Label Studio does."""
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                if self.client.get("/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, "the backend did not get ready"
            time.sleep(0.2)
        body = {"project": "1.1", "schema": LABEL_CONFIG, "hostname": hostname, "access_token": "t"}
        self.client.post("/setup", json=body).raise_for_status()

    def processor_ms(self) -> dict[str, float]:
        """Milliseconds of processor time that server and worker have taken until now."""
        times = {name: psutil.Process(p.pid).cpu_times() for name, p in self._processes.items()}
        return {f"CPU {name}": 1000 * (time.user + time.system) for name, time in times.items()}

    def stop(self) -> None:
        """Stop server and worker."""
        self.client.close()
        for process in (self._server, self._worker):
            process.terminate()
            process.wait(60)
        self._reader.join()


def click(backend: Backend, size: tuple[int, int], x: float, y: float, number: int) -> dict[str, float]:
    """Milliseconds by phase of one click. caller: what it spent outside of the server."""
    width, height = size
    dot = {
        "id": f"{width}-{number}",
        "type": "keypointlabels",
        "from_name": "click",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "is_positive": True,
        "value": {"x": x, "y": y, "width": 0.4, "keypointlabels": ["Wheel"]},
    }
    body = {
        "tasks": [{"id": width, "data": {"image": f"/data/upload/1/{width}x{height}.jpg"}}],
        "project": "1.1",
        "label_config": LABEL_CONFIG,
        "params": {"context": {"result": [dot]}},
    }
    data = json.dumps(body).encode()
    started = time.perf_counter()
    answer = backend.client.post("/predict", content=data, headers={"Content-Type": "application/json"})
    waited = 1000 * (time.perf_counter() - started)
    facts = backend.line(answer.headers["X-RefCut-Request"])
    assert facts["outcome"] == "answered", facts
    phases: dict[str, float] = facts["milliseconds"]
    return phases | {
        "caller": waited - facts["total_ms"],
        "all": waited,
        "answer, kB": len(answer.content) / 1000,
    }


def measure(backend: Backend, size: tuple[int, int], rounds: int) -> dict[str, float]:
    """Milliseconds by phase and by process."""
    places = np.random.default_rng(0).uniform(20, 80, (rounds + 1, 2))
    x, y = places[0]
    click(backend, size, x, y, 0)
    before = backend.processor_ms()
    taken: dict[str, list[float]] = defaultdict(list)
    for number, (x, y) in enumerate(places[1:], 1):
        for phase, value in click(backend, size, x, y, number).items():
            taken[phase].append(value)
    after = backend.processor_ms()
    medians = {phase: statistics.median(values) for phase, values in taken.items()}
    return medians | {name: (after[name] - before[name]) / rounds for name in after}


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, label_studio() as hostname, EmbeddedRedis() as redis:
        check_redis(redis.url)
        backend = Backend(folder, redis.url)
        try:
            backend.connect(hostname)
            rows = {name: measure(backend, size, arguments.rounds) for name, size in SIZES.items()}
        finally:
            backend.stop()
    phases = list(next(iter(rows.values())))
    print(f"| {arguments.rounds} clicks, ms | " + " | ".join(phases) + " |")
    print("| --- |" + " ---: |" * len(phases))
    for name, milliseconds in rows.items():
        print(f"| {name} | " + " | ".join(f"{milliseconds[phase]:.1f}" for phase in phases) + " |")


if __name__ == "__main__":
    main()
