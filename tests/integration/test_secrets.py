"""Canaries where secrets are, and a look at everything that leaves the web process."""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from refcut_backend.api.app import create_app
from refcut_backend.api.auth import SECRET_HEADER
from refcut_backend.logs import SafeJsonFormatter
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis
from tests.support.fake_wiring import CREATED, FakeQueue, click_body, wiring_on
from tests.support.http_server import serving
from tests.support.recorded import LABEL_CONFIG, REPOSITORY, backend_request, click_result
from tests.support.running_backend import free_port, wait_until_up

PASSWORD, SECRET = "canary-password", "canary-secret"
TOKEN, OWN_TOKEN = "canary-token", "canary-own-token"
SETUP = {
    "project": f"7.{CREATED}",
    "schema": LABEL_CONFIG,
    "hostname": "http://127.0.0.1:9",
    "access_token": TOKEN,
}
SIGNED_IMAGE = "https://bucket.s3.example.com/a.jpg?X-Amz-Credential=canary&X-Amz-Signature=canary-signature"
PARAMS = {"login": "canary-login", "password": "canary-task-data-password"}


def click(**more: object) -> dict[str, Any]:
    """A click that carries secrets where Label Studio has them."""
    body = click_body(click_result("a", 1, 1, "Door"), **more)
    body["params"] |= PARAMS
    return body


def requests_with_secrets() -> list[tuple[str, str, Any]]:
    annotation = backend_request("api_annotation_create", "/webhook")
    return [
        ("POST", "/setup", SETUP),
        ("POST", "/predict", click()),
        ("POST", "/predict", click(tasks=[{"id": 4, "data": {"image": SIGNED_IMAGE}}])),
        ("POST", "/predict", click(project="canary/../1")),
        ("POST", "/predict", click(label_config="<View><canary")),
        ("POST", "/setup", SETUP | {"project": {"canary": 1}}),
        ("POST", "/webhook", annotation | {"project": annotation["project"] | {"token": "canary"}}),
        ("POST", "/webhook", annotation | {"project": {"id": "canary"}}),
        ("GET", "/status", None),
        ("GET", "/metrics", None),
        ("GET", "/readyz", None),
    ]


def everything_in(connection: Redis) -> str:
    """All that Redis holds, jobs unpacked."""
    found: list[Any] = []
    for key in connection.keys("*"):
        kind = connection.type(key)
        found.append(key)
        if kind == b"hash":
            found.extend(connection.hgetall(key).items())
        elif kind == b"stream":
            found.extend(connection.xrange(key))
        elif kind == b"list":
            found.extend(connection.lrange(key, 0, -1))
        elif kind == b"string":
            found.append(connection.get(key))
    packed = [
        value for item in found if isinstance(item, tuple) for value in item if isinstance(value, bytes)
    ]
    return repr(found) + repr([zlib.decompress(value) for value in packed if value.startswith(b"x\x9c")])


@pytest.fixture
def redis_url() -> Iterator[str]:
    with EmbeddedRedis() as server:
        check_redis(server.url)
        yield server.url


def start_web_process(redis_url: str, state_dir: Path, port: int) -> subprocess.Popen[str]:
    settings = {
        "REDIS_URL": redis_url,
        "STATE_DIR": str(state_dir),
        "PORT": str(port),
        "CLICK_TIMEOUT_S": "2",
        "BASIC_AUTH_USER": "label-studio",
        "BASIC_AUTH_PASSWORD": PASSWORD,
        "WEBHOOK_SECRET": SECRET,
        "ACCESS_TOKEN": OWN_TOKEN,
        "LABEL_STUDIO_URL": "http://127.0.0.1:9",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "refcut_backend", "serve"],
        env=os.environ | {f"REFCUT_{name}": value for name, value in settings.items()},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_no_secret_leaves_the_web_process_in_answers_logs_or_redis(redis_url, tmp_path):
    port = free_port()
    process = start_web_process(redis_url, tmp_path, port)
    credentials = base64.b64encode(f"label-studio:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}", SECRET_HEADER: SECRET}
    answers, in_redis, done = [], [], threading.Event()

    def watch_redis() -> None:
        with connect_redis(redis_url) as connection:
            while not done.is_set():
                in_redis.append(everything_in(connection))
                time.sleep(0.02)

    watcher = threading.Thread(target=watch_redis)
    watcher.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            client.headers = headers
            wait_until_up(client, process)
            for method, path, body in requests_with_secrets():
                answers.append(client.request(method, path, json=body))
                answers.append(httpx.request(method, client.base_url.join(path), json=body, trust_env=False))
            assert [answer.status_code for answer in answers[:4:2]] == [200, 200]
    finally:
        done.set()
        watcher.join()
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert '"event": "request"' in output
    assert "Door" in "".join(in_redis), "the click was never seen in Redis"
    assert '"task": 4' in output, "the click on a signed link was never logged"
    responses = "".join(f"{answer.headers}{answer.text}" for answer in answers)
    for place, text in (("answers", responses), ("log", output), ("redis", "".join(in_redis))):
        assert "canary" not in text, place
        assert credentials not in text, place


def test_no_secret_is_logged_at_any_level_by_anybody(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    caplog.handler.setFormatter(SafeJsonFormatter("%(message)s"))
    with wiring_on(tmp_path, FakeQueue()) as wiring, serving(create_app(wiring, 1_000_000)) as client:
        caplog.clear()
        for method, path, body in requests_with_secrets():
            client.request(method, path, json=body, headers={"Authorization": "Token canary-0123456789"})
    # The line of a request follows its answer: all are written once the server has ended.
    written = [SafeJsonFormatter("%(message)s").format(record) for record in caplog.records]
    assert len(written) >= len(list(requests_with_secrets()))
    assert [text for text in written if "canary" in text] == []
