"""Images on their whole way with real processes: a Label Studio below a base path that takes personal access tokens
only, a mounted folder, and a storage whose links are signed. Nothing secret may be left anywhere."""

from __future__ import annotations

import signal
import subprocess
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis
from tests.support.fake_label_studio import LEGACY, PERSONAL, Answer, FakeLabelStudio, running
from tests.support.recorded import LABEL_CONFIG, REPOSITORY, click_result
from tests.support.running_backend import free_port, start, wait_until_up
from tests.support.worker_farm import wait_for

pytestmark = pytest.mark.slow


PHOTOGRAPH = (REPOSITORY / "label_studio_demo" / "car_parts_te66.jpg").read_bytes()
UPLOAD = "/data/upload/1/te66.jpg"
SIGNED = "/bucket/te66.jpg?X-Amz-Signature=canary5160"
WAIT_S = 90


@dataclass
class Running:
    client: httpx.Client
    process: subprocess.Popen[str]
    label_studio: FakeLabelStudio
    storage: FakeLabelStudio
    redis: redis.Redis
    folder: Path

    def predict(self, address: str, context: dict[str, Any] | None) -> httpx.Response:
        body = {
            "tasks": [{"id": 2, "data": {"image": address}}],
            "project": "1.1",
            "label_config": LABEL_CONFIG,
            "params": {"login": "user", "password": "canary5160", "context": context},
        }
        return self.client.post("/predict", json=body)

    def click(self, address: str) -> httpx.Response:
        return self.predict(address, {"result": [click_result("a", 50, 50, "Wheel")]})


@pytest.fixture(scope="module")
def backend(tmp_path_factory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("images")
    (folder / "shared" / "cars").mkdir(parents=True)
    (folder / "shared" / "cars" / "a.jpg").write_bytes(PHOTOGRAPH)
    label_studio = FakeLabelStudio(base="/labeling", legacy=None, files={UPLOAD: Answer(PHOTOGRAPH)})
    storage = FakeLabelStudio(files={SIGNED: Answer(PHOTOGRAPH)})
    storage.good.add(None)
    port = free_port()
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis())
        check_redis(server.url)
        stack.enter_context(running(label_studio))
        stack.enter_context(running(storage))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("REFCUT_ACCESS_TOKEN", PERSONAL)
        patch.setenv("REFCUT_LABEL_STUDIO_URL", label_studio.url)
        patch.setenv("REFCUT_IMAGE_HOSTS", f"127.0.0.1:{storage.port}")
        patch.setenv("REFCUT_LOCAL_FILES_DIR", str(folder / "shared"))
        patch.setenv("REFCUT_TRAINING_WORKER", "false")
        process = start(folder / "state", port, server.url)
        stack.callback(end, process)
        client = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S, trust_env=False)
        )
        wait_until_up(client, process)
        setup = {
            "project": "1.1",
            "schema": LABEL_CONFIG,
            "hostname": label_studio.url,
            "access_token": LEGACY,
        }
        client.post("/setup", json=setup).raise_for_status()
        yield Running(client, process, label_studio, storage, connect_redis(server.url), folder)


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_S)


def mask_of(answer: httpx.Response) -> list[int]:
    assert "x-refcut-reason" not in answer.headers, answer.headers
    (region,) = answer.json()["results"][0]["result"]
    rle: list[int] = region["value"]["rle"]
    return rle


def test_an_opened_task_is_answered_at_once_and_its_first_click_finds_the_image_ready(backend):
    backend.click("/data/local-files/?d=cars/a.jpg")  # the worker is up
    assert backend.predict("/labeling" + UPLOAD, None).json()["results"] == []
    deadline = time.monotonic() + WAIT_S
    while not backend.label_studio.asked(UPLOAD):
        assert time.monotonic() < deadline, "the image was not fetched ahead of the click"
        time.sleep(0.05)
    assert mask_of(backend.click("/labeling" + UPLOAD))
    assert len(backend.label_studio.asked(UPLOAD)) == 1
    assert backend.label_studio.refreshes <= 2, (
        "once a process: the web server compares references, the worker fetches"
    )


def test_the_same_photograph_gives_the_same_mask_wherever_it_comes_from(backend):
    addresses = (UPLOAD, "/data/local-files/?d=cars/a.jpg", backend.storage.url + SIGNED)
    first, *others = (mask_of(backend.click(address)) for address in addresses)
    assert others == [first, first]
    assert backend.label_studio.asked("/data/local-files/?d=cars/a.jpg") == []
    assert {seen.authorization for seen in backend.storage.seen} == {None}


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:1/a.png?signature=canary5160", "address_refused"),
        ("http://169.254.169.254/latest/meta-data/?canary5160", "address_refused"),
        ("file:///etc/passwd", "image"),
        ("/data/local-files/?d=../../../etc/passwd", "image"),
        ("/data/local-files/?d=%2e%2e/state/refcut.db", "image"),
        ("/data/upload/1/gone.jpg", "image"),
    ],
)
def test_an_image_that_must_not_or_cannot_be_had_gives_an_empty_result_and_a_reason(backend, address, reason):
    answer = backend.click(address)
    assert answer.status_code == 200
    assert answer.headers["x-refcut-reason"] == reason
    assert [result["result"] for result in answer.json()["results"]] == [[]]
    assert "canary" not in answer.text + str(answer.headers)


def in_redis(connection: redis.Redis) -> bytes:
    """All that Redis holds, unpacked where rq packs it."""
    found = b""
    for key in connection.keys("*"):
        found += key
        if connection.type(key) == b"hash":
            for name, value in connection.hgetall(key).items():
                found += name + (zlib.decompress(value) if name == b"data" else value)
        else:
            found += connection.dump(key) or b""
    return found


@contextmanager
def workers_standing_still(backend: Running) -> Iterator[None]:
    """What they take would be gone before anybody can look at it."""
    children = psutil.Process(backend.process.pid).children(recursive=True)
    workers = [child for child in children if "worker" in child.cmdline()]
    assert workers
    for worker in workers:
        worker.suspend()
    try:
        yield
    finally:
        for worker in workers:
            worker.resume()


def test_no_token_and_no_signature_is_in_redis_or_in_any_output(backend):
    with ThreadPoolExecutor(1) as clicking:
        with workers_standing_still(backend):
            answer = clicking.submit(backend.click, backend.storage.url + SIGNED)
            wait_for(lambda: b"run_click" in in_redis(backend.redis), "the click is in Redis")
            held = in_redis(backend.redis)
        answer.result()
    held += in_redis(backend.redis)
    assert b"run_click" in held
    backend.process.send_signal(signal.SIGTERM)
    output, _ = backend.process.communicate(timeout=WAIT_S)
    assert "answered" in output
    assert "task prepared" in output
    for secret in (LEGACY, PERSONAL, PERSONAL.rsplit(".", 1)[1], "canary5160", "Bearer"):
        assert secret not in output
        assert secret.encode() not in held
    database = b"".join(path.read_bytes() for path in (backend.folder / "state").glob("refcut.db*"))
    assert LEGACY.encode() in database
    assert PERSONAL.encode() not in database
