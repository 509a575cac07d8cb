from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from refcut_backend.api.handlers import REASON_HEADER
from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.connection import Connection
from refcut_backend.queue.redis import EmbeddedRedis, check_redis
from refcut_backend.references.registry import References
from tests.support.fake_wiring import MASK, PROJECTS, click_body
from tests.support.label_studio_api import TOKEN, LabelStudioApi, serving
from tests.support.recorded import (
    LABEL_CONFIG,
    REPOSITORY,
    backend_request,
    brush_result,
    click_result,
    recorded,
    role_result,
)
from tests.support.registry import DOOR, marked
from tests.support.running_backend import free_port, wait_until_up

pytestmark = pytest.mark.slow


FOLLOWED_WITHIN_S = 120
MODEL_FILE = REPOSITORY / "refcut_backend" / "label_studio_ml_model.py"


@dataclass
class Server:
    """A running label-studio-ml, and the folder of its database."""

    client: httpx.Client
    folder: Path
    version: str

    def setup(self, project: int, label_config: str, created: str = "1") -> httpx.Response:
        body = {
            "project": f"{project}.{created}",
            "schema": label_config,
            "hostname": "http://ls",
            "access_token": "t",
        }
        return self.client.post("/setup", json=body)

    def references(self, project: int, label: str) -> int:
        """How many the database has."""
        engine = open_database(f"sqlite:///{self.folder / 'refcut.db'}")
        found = len(References(engine).newest(project, label, 9))
        engine.dispose()
        return found

    def wait_for_references(self, project: int, label: str, number: int) -> None:
        deadline = time.monotonic() + FOLLOWED_WITHIN_S
        while self.references(project, label) != number:
            assert time.monotonic() < deadline, "the webhook was not followed"
            time.sleep(0.1)


@contextmanager
def running(version: str, folder: Path) -> Iterator[Server]:
    """`tests.support.label_studio_ml_server` as a process."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.label_studio_ml_server", version, str(port), str(folder)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
        wait_until_up(client, process)
        yield Server(client, folder, version)
    process.terminate()
    process.communicate(timeout=60)


@pytest.fixture(scope="module", params=["1.0.9", "github"])
def server(request, tmp_path_factory) -> Iterator[Server]:
    with running(request.param, tmp_path_factory.mktemp("server")) as started:
        yield started


def config_with(brush: str, label: str) -> str:
    """The shipped label config with another name for the brush and another label."""
    return LABEL_CONFIG.replace('name="brush"', f'name="{brush}"').replace("Door", label)


def click(server: Server, project: int, label_config: str, label: str) -> httpx.Response:
    body = click_body(click_result("a", 1, 1, label), project=f"{project}.1", label_config=label_config)
    return server.client.post("/predict", json=body)


def reference_event(project: int, **more: Any) -> dict[str, Any]:
    door = brush_result("d", "Door", MASK)
    annotation = {"id": 11, "result": [door, role_result(door, "Reference")], "updated_at": "2026-01-01"}
    return {
        "action": "ANNOTATION_CREATED",
        "project": {"id": project, "label_config": LABEL_CONFIG},
        "task": {"id": 5, "data": {"image": "/data/upload/1/ref.jpg"}},
        "annotation": annotation,
    } | more


def test_setup_is_remembered_and_answered_with_a_model_version(server):
    answer = server.setup(1, LABEL_CONFIG)
    assert answer.status_code == 200
    if server.version == "github":
        assert answer.json() == {"model_version": "s14-test"}
    engine = open_database(f"sqlite:///{server.folder / 'refcut.db'}")
    connection = Projects(engine).connection(1)
    engine.dispose()
    assert (connection.label_studio, connection.access_token) == ("http://ls", "t")


def test_an_event_of_a_known_project_that_comes_before_its_setup_is_followed_by_the_github_version(tmp_path):
    with running("github", tmp_path) as server:
        answer = server.client.post("/webhook", json=reference_event(7))
        assert answer.json() == {"result": {}, "status": "ok"}
        server.wait_for_references(7, "Door", 1)


def test_a_recorded_click_is_answered_as_by_our_own_server(server):
    body = recorded("predict_interactive_3clicks_full")["body"]
    server.setup(3, body["label_config"])
    (prediction,) = server.client.post("/predict", json=body).json()["results"]
    (region,) = prediction["result"]
    assert prediction["model_version"] == "s14-test"
    assert (region["from_name"], region["value"]["brushlabels"]) == ("tag", ["Cat"])
    assert np.array_equal(brush_rle.decode(region["value"]["rle"], 8, 8), MASK)


def test_projects_never_leak_into_each_other(server):
    configs = {project: config_with(f"brush{project}", f"Label{project}") for project in (31, 32)}
    for project, config in configs.items():
        server.setup(project, config)
    for project in (31, 32, 31):
        (prediction,) = click(server, project, configs[project], f"Label{project}").json()["results"]
        (region,) = prediction["result"]
        assert (region["from_name"], region["value"]["brushlabels"]) == (
            f"brush{project}",
            [f"Label{project}"],
        )
    refused = click(server, 31, configs[31], "Label32")
    assert refused.headers[REASON_HEADER] == "label_config"
    assert [prediction["result"] for prediction in refused.json()["results"]] == [[]]


def test_opening_a_task_stores_no_prediction(server):
    body = backend_request("api_open_task", "/predict")
    server.setup(2, body["label_config"])
    assert server.client.post("/predict", json=body).json()["results"] == []


def test_an_empty_context_is_answered_with_one_empty_result(server):
    server.setup(7, LABEL_CONFIG)
    answer = server.client.post("/predict", json=click_body())
    assert answer.headers[REASON_HEADER] == "no_clicks"
    assert [prediction["result"] for prediction in answer.json()["results"]] == [[]]


def test_references_follow_webhooks_deletion_included(server):
    server.setup(41, LABEL_CONFIG)
    server.setup(42, LABEL_CONFIG)
    assert server.client.post("/webhook", json=reference_event(41)).json() == {"status": "accepted"}
    server.wait_for_references(41, "Door", 1)
    assert server.references(42, "Door") == 0
    gone = {
        "action": "ANNOTATIONS_DELETED",
        "project": {"id": 41, "label_config": LABEL_CONFIG},
        "annotations": [{"id": 11}],
    }
    assert server.client.post("/webhook", json=gone).json() == {"status": "accepted"}
    server.wait_for_references(41, "Door", 0)


def test_start_training_pressed_twice_is_one_job(server):
    server.setup(2, LABEL_CONFIG, PROJECTS[2])
    first, second = (
        server.client.post("/webhook", json=backend_request("api_train", "/webhook")).json() for _ in range(2)
    )
    assert first == second == {"status": "accepted", "job": first["job"]}


def test_a_forged_project_is_refused_without_its_value(server):
    answer = server.client.post(
        "/setup", json={"project": "canary/../2", "schema": LABEL_CONFIG, "access_token": "canary-token"}
    )
    assert answer.status_code == 500
    assert "canary-token" not in answer.text


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Iterator[Server]:
    """`label-studio-ml init` and `label-studio-ml start`, as the documentation says."""
    folder = tmp_path_factory.mktemp("started")
    port = free_port()
    command = Path(sys.executable).parent / "label-studio-ml"
    with EmbeddedRedis() as redis:
        check_redis(redis.url)
        environment = os.environ | {
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "REFCUT_REDIS_URL": redis.url,
            "REFCUT_STATE_DIR": str(folder),
        }
        subprocess.run(
            [command, "init", "backend", "--script", f"{MODEL_FILE}:RefCutModel"],
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
            timeout=120,
        )
        process = subprocess.Popen(
            [command, "start", "backend", "--port", str(port), "--host", "127.0.0.1"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            wait_until_up(client, process)
            yield Server(client, folder, "1.0.9")
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


def test_label_studio_ml_start_hosts_us_on_a_real_redis_and_database(started):
    engine = open_database(f"sqlite:///{started.folder / 'refcut.db'}")
    Projects(engine).remember(2, Connection("http://ls", "t"), LABEL_CONFIG)
    engine.dispose()
    # Before any /setup label-studio-ml itself takes an event, and makes a process for it.
    assert started.client.post("/webhook", json=reference_event(2)).status_code == 201
    started.wait_for_references(2, "Door", 1)
    assert started.setup(1, LABEL_CONFIG).status_code == 200
    answer = started.client.post("/predict", json=click_body(project="1.1"))
    assert [prediction["result"] for prediction in answer.json()["results"]] == [[]]
    assert answer.headers[REASON_HEADER] == "no_clicks"
    assert started.client.post("/webhook", json=reference_event(1)).status_code == 200
    started.wait_for_references(1, "Door", 1)


def test_what_was_marked_before_label_studio_ml_was_connected_is_found_by_setup(started):
    with serving(LabelStudioApi(7)) as label_studio:
        label_studio.annotate(1, 10, DOOR, marked(DOOR))
        body = {"project": "7.1", "schema": LABEL_CONFIG, "hostname": label_studio.url, "access_token": TOKEN}
        assert started.client.post("/setup", json=body).status_code == 200
        started.wait_for_references(7, "Door", 1)


WIRED_WITH_A_SECRET = """
import os, sys, traceback
from refcut_backend.api.label_studio_ml import wiring
for variable in sys.argv[1:]:
    os.environ[variable] = "canary"
    try:
        wiring()
    except Exception:
        traceback.print_exc()
    print("next", file=sys.stderr)
    del os.environ[variable]
"""


def test_a_password_that_label_studio_ml_would_not_ask_for_refuses_to_serve():
    expected = {"REFCUT_BASIC_AUTH_PASSWORD": "belong together", "REFCUT_WEBHOOK_SECRET": "refcut serve"}
    done = subprocess.run(
        [sys.executable, "-c", WIRED_WITH_A_SECRET, *expected],
        env=os.environ | {"REFCUT_REDIS_URL": "redis://127.0.0.1:9"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    refusals = done.stderr.split("next\n")[: len(expected)]
    for text, refusal in zip(expected.values(), refusals, strict=True):
        assert "ConfigError" in refusal
        assert text in refusal
    assert "canary" not in done.stderr
