"""References as Label Studio gives them: /setup and /webhook, up to the job that a click puts on the queue."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
import uvicorn
from redis import Redis

from refcut_backend.api.app import create_app
from refcut_backend.label_studio.payloads import Webhook
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis
from refcut_backend.references.webhooks import AnnotationFollower
from refcut_backend.settings import Settings
from refcut_backend.wiring import wire_backend
from tests.support.label_studio_api import TOKEN, LabelStudioApi, serving
from tests.support.recorded import LABEL_CONFIG, backend_request
from tests.support.registry import DOOR, marked
from tests.support.running_backend import free_port
from tests.support.web_process import CREATED, WAIT_LIMIT_S, setup_body, wait_until, web_process


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with EmbeddedRedis() as server:
        check_redis(server.url)
        yield server.url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    connection = connect_redis(redis_url)
    connection.flushall()
    yield connection
    connection.close()


@pytest.fixture
def label_studio() -> Iterator[LabelStudioApi]:
    with serving(LabelStudioApi()) as api:
        yield api


def test_references_and_the_owners_word_survive_an_emptied_redis_and_a_restart(tmp_path, redis, label_studio):
    with web_process(tmp_path, redis) as web:
        web.client.post("/setup", json=setup_body(label_studio, {"pin": {"Door": [{"task": 10}]}}))
        for number in (1, 2):
            web.client.post("/webhook", json=label_studio.annotate(number, 10 * number, DOOR, marked(DOOR)))
        used = web.references_of_a_click()
    assert len(used) == 1
    redis.flushall()
    with web_process(tmp_path, redis) as web:
        assert web.references_of_a_click() == used


def test_a_reference_of_one_project_is_never_sent_with_a_click_of_another(tmp_path, redis, label_studio):
    with web_process(tmp_path, redis) as web:
        web.client.post("/setup", json=setup_body(label_studio))
        web.client.post("/setup", json=setup_body(label_studio) | {"project": f"8.{CREATED}"})
        web.client.post("/webhook", json=label_studio.annotate(1, 10, DOOR, marked(DOOR)))
        assert len(web.references_of_a_click(project=7)) == 1
        assert web.references_of_a_click(project=8) == ()


@pytest.mark.parametrize("project", ["1/../2", "", None, -1, 0, "1" * 40, {"id": 1}, [7], True])
def test_a_forged_project_id_is_a_bad_request_everywhere(tmp_path, redis, label_studio, project):
    webhook = label_studio.annotate(1, 10, DOOR, marked(DOOR))
    with web_process(tmp_path, redis) as web:
        forged = {"project": {"id": project, "label_config": LABEL_CONFIG}}
        answers = [
            web.client.post("/setup", json=setup_body(label_studio) | {"project": project}),
            web.client.post("/webhook", json=webhook | forged),
        ]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert not any("../" in answer.text for answer in answers)


@pytest.mark.parametrize("encode", [lambda params: params, json.dumps], ids=["object", "text"])
def test_extra_parameters_are_accepted_as_label_studio_sends_them(tmp_path, redis, label_studio, encode):
    with web_process(tmp_path, redis) as web:
        for _ in range(2):
            body = setup_body(label_studio, encode({"disable": ["Door"]}))
            assert web.client.post("/setup", json=body).status_code == 200
        web.client.post("/webhook", json=label_studio.annotate(1, 10, DOOR, marked(DOOR)))
        assert web.references_of_a_click() == ()


@pytest.mark.parametrize(
    ("extra_params", "fault"),
    [
        ("{no json", "not JSON"),
        ({"pin": [1]}, "pin"),
        ("x" * 2**20, "longer"),
        ({"disable": ["x" * 2**20]}, "longer"),
    ],
)
def test_extra_parameters_that_cannot_be_read_are_named_in_the_log_and_break_nothing(
    tmp_path, redis, label_studio, caplog, extra_params, fault
):
    with web_process(tmp_path, redis) as web:
        for _ in range(3):
            assert web.client.post("/setup", json=setup_body(label_studio, extra_params)).status_code == 200
        web.client.post("/webhook", json=label_studio.annotate(1, 10, DOOR, marked(DOOR)))
        assert len(web.references_of_a_click()) == 1
    (record,) = [r for r in caplog.records if r.message == "extra parameters not used"]
    assert fault in record.problem
    assert len(record.problem) < 300


def test_what_was_marked_before_the_backend_was_connected_is_found_by_setup(tmp_path, redis, label_studio):
    label_studio.annotate(1, 10, DOOR, marked(DOOR))
    label_studio.annotate(2, 20, DOOR)
    with web_process(tmp_path, redis) as web:
        extra_params = {"references": {"Door": [{"task": 20}]}}
        web.client.post("/setup", json=setup_body(label_studio, extra_params))
        wait_until(lambda: len(web.references.newest(7, "Door", 4)) == 2)


def test_the_web_process_compares_with_label_studio_by_itself_and_stops_with_it(
    tmp_path, redis, label_studio
):
    def comparing() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "reconcile"]

    with web_process(tmp_path, redis) as web:
        web.client.post("/setup", json=setup_body(label_studio))
    assert comparing() == []
    label_studio.annotate(1, 10, DOOR, marked(DOOR))
    with web_process(tmp_path, redis, reconcile_interval_s=1) as web:
        wait_until(lambda: web.references.newest(7, "Door", 4))
        assert len(comparing()) == 1
    assert comparing() == []


def test_the_token_never_reaches_the_log(tmp_path, redis, label_studio, caplog):
    caplog.set_level("DEBUG", logger="refcut")
    label_studio.fails_with = 401
    with web_process(tmp_path, redis, reconcile_interval_s=1) as web:
        web.client.post("/setup", json=setup_body(label_studio, "canary-of-extra-parameters"))
        wait_until(lambda: any("cannot be compared" in r.message for r in caplog.records))
    everything = "\n".join(
        str(record.__dict__) for record in caplog.records if record.name.startswith("refcut")
    )
    assert "REFCUT_ACCESS_TOKEN" in everything
    assert TOKEN not in everything
    assert "canary" not in everything


def test_a_recorded_start_of_training_without_annotation_breaks_nothing(tmp_path, redis):
    with web_process(tmp_path, redis) as web:
        assert web.client.post("/webhook", json=backend_request("api_train", "/webhook")).is_success


class HeldUpFollower(AnnotationFollower):
    """Follows a webhook only when it is let go."""

    def __init__(self) -> None:
        self.started, self.may_go_on = threading.Event(), threading.Event()

    def apply(self, webhook: Webhook) -> None:
        self.started.set()
        assert self.may_go_on.wait(WAIT_LIMIT_S)


@pytest.mark.usefixtures("databases_closed")
def test_a_webhook_is_acknowledged_before_it_is_followed(tmp_path, redis, label_studio):
    """Label Studio waits a second for the acknowledgement, inside the annotator's own request."""
    settings = Settings(state_dir=tmp_path, reconcile_interval_s=0)
    wiring, follower = wire_backend(settings, redis), HeldUpFollower()
    wiring.projects.remember(7, label_studio.connection, LABEL_CONFIG)
    port = free_port()
    app = create_app(replace(wiring, follower=follower), 2**22)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        body = label_studio.annotate(1, 10, DOOR, marked(DOOR))
        with httpx.Client(timeout=WAIT_LIMIT_S, trust_env=False) as client:
            answer = client.post(f"http://127.0.0.1:{port}/webhook", json=body)
        assert answer.is_success
        assert follower.started.wait(WAIT_LIMIT_S)
        assert not follower.may_go_on.is_set()
    finally:
        follower.may_go_on.set()
        server.should_exit = True
        thread.join()
