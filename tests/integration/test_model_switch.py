"""Promote and rollback of a running backend, by the command and under clicks: nobody is turned away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import redis
from typer.testing import CliRunner

from refcut_backend.cli.main import app
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis
from refcut_backend.versions.store import ModelStore
from tests.support.recorded import LABEL_CONFIG, REPOSITORY, click_result
from tests.support.running_backend import free_port, start, wait_until_up
from tests.support.trained_folders import trained_folder, version_metadata
from tests.support.worker_farm import wait_for

pytestmark = pytest.mark.slow


PHOTOGRAPH = (REPOSITORY / "label_studio_demo" / "car_parts_te66.jpg").read_bytes()
NO_MASK_IS_FINE = {None, "empty_mask"}
BETWEEN_CLICKS_S = 0.02


@dataclass
class Backend:
    """A running backend with tiny networks. answers: (project, model_version, reason) of every click so far."""

    client: httpx.Client
    redis: redis.Redis
    folder: Path
    answers: list[tuple[int, str, str | None]] = field(default_factory=list)

    def click(self, project: int) -> str:
        body = {
            "tasks": [{"id": 2, "data": {"image": "/data/local-files/?d=a.jpg"}}],
            "project": f"{project}.1",
            "label_config": LABEL_CONFIG,
            "params": {"context": {"result": [click_result(f"dot{len(self.answers)}", 50, 50, "Wheel")]}},
        }
        answer = self.client.post("/predict", json=body).raise_for_status()
        version = str(answer.json()["results"][0]["model_version"])
        self.answers.append((project, version, answer.headers.get("X-RefCut-Reason")))
        return version

    def refcut_models(self, *arguments: str) -> None:
        """Runs the command as its user does."""
        environment = {"REFCUT_STATE_DIR": str(self.folder / "state"), "REFCUT_RUNTIME": "torch"}
        done = CliRunner().invoke(app, ["models", *arguments], env=environment, catch_exceptions=False)
        assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Projects 1 to 4 are connected; each test has two of them for itself."""
    tmp_path = tmp_path_factory.mktemp("switch")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "a.jpg").write_bytes(PHOTOGRAPH)
    port = free_port()
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis())
        check_redis(server.url)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("REFCUT_LOCAL_FILES_DIR", str(tmp_path / "shared"))
        patch.setenv("REFCUT_MODEL_DIR", str(trained_folder(tmp_path / "tiny")))
        patch.setenv("REFCUT_TRAINING_WORKER", "false")
        patch.setattr("refcut_backend.cli.common.set_up_logging", lambda: None)
        process = start(tmp_path / "state", port, server.url)
        # Its log is longer than a pipe: somebody has to read it.
        reader = threading.Thread(target=lambda: list(process.stdout or ()))
        reader.start()
        stack.callback(process.communicate)
        stack.callback(process.wait)
        stack.callback(reader.join)
        stack.callback(process.send_signal, signal.SIGTERM)
        address = f"http://127.0.0.1:{port}"
        client = stack.enter_context(httpx.Client(base_url=address, timeout=90, trust_env=False))
        wait_until_up(client, process)
        setup_body = {
            "project": "1.1",
            "schema": LABEL_CONFIG,
            "hostname": "http://127.0.0.1:1",
            "access_token": "x",
        }
        for project in ("1.1", "2.1", "3.1", "4.1"):
            client.post("/setup", json=setup_body | {"project": project}).raise_for_status()
        connection = connect_redis(server.url)
        stack.callback(connection.close)
        yield Backend(client, connection, tmp_path)


def test_promote_and_rollback_switch_between_two_clicks_and_drop_none(backend, tmp_path):
    store = ModelStore.open(str(backend.folder / "state" / "models"))
    versions = [
        store.publish(1, trained_folder(tmp_path / f"run-{seed}", seed), version_metadata())
        for seed in (1, 2)
    ]
    shared = backend.click(1)
    assert backend.click(2) == shared
    stopping = threading.Event()

    def annotate() -> None:
        while not stopping.wait(BETWEEN_CLICKS_S):
            backend.click(1)
            backend.click(2)

    annotator = threading.Thread(target=annotate)
    annotator.start()
    try:
        for arguments, expected in (
            (("promote", "--project", "1", versions[0]), versions[0]),
            (("promote", "--project", "1", versions[1]), versions[1]),
            (("rollback", "--project", "1"), versions[0]),
            (("rollback", "--project", "1"), shared),
        ):
            backend.refcut_models(*arguments)
            wait_for(lambda version=expected: latest(backend, 1) == version, f"{expected} answers")
            assert backend.client.get("/versions").json()["versions"][0] == shared
    finally:
        stopping.set()
        annotator.join()
    assert {reason for _, _, reason in backend.answers} <= NO_MASK_IS_FINE, "no click was dropped"
    assert {version for project, version, _ in backend.answers if project == 2} == {shared}


def latest(backend: Backend, project: int) -> str | None:
    return next((version for p, version, _ in reversed(backend.answers) if p == project), None)


def test_emptying_redis_loses_no_version(backend, tmp_path):
    store = ModelStore.open(str(backend.folder / "state" / "models"))
    version = store.publish(3, trained_folder(tmp_path / "run", 1), version_metadata())
    store.promote(3, version)
    assert backend.click(3) == version
    backend.redis.flushall()
    wait_for(lambda: backend.client.get("/readyz").status_code == 200, "the worker is known again")
    assert backend.click(3) == version
    assert backend.click(4) != version
