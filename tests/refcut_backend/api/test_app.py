from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from refcut_backend.api.app import create_app
from refcut_backend.api.handlers import REASON_HEADER
from refcut_backend.clicks.log import ClickLog
from refcut_backend.database.engine import open_database
from refcut_backend.errors import ClickTimeoutError
from refcut_backend.label_studio import brush_rle
from refcut_backend.queue.messages import ClickAnswer
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.fake_wiring import MASK, click_body, queue_state
from tests.support.recorded import PROJECT, backend_request, brush_result, click_result, recorded, role_result


def annotation(*result: dict[str, Any], at: str = "2026-01-01", **more: Any) -> dict[str, Any]:
    return {"id": 11, "result": list(result), "updated_at": at, "task": 5, "was_cancelled": False} | more


def webhook(action: str, **fields: Any) -> dict[str, Any]:
    task = {"id": 5, "data": {"image": "/data/upload/1/ref.jpg"}}
    return {"action": action, "project": PROJECT, "task": task} | fields


def test_a_recorded_setup_is_answered_with_the_serving_version_every_time(client):
    body = backend_request("api_list_ml", "/setup")
    for _ in range(3):
        answer = client.post("/setup", json=body)
        assert (answer.status_code, answer.json()) == (200, {"model_version": "s14-test"})


def test_a_label_config_with_a_problem_is_logged_once_and_not_on_every_page(client, caplog):
    body = backend_request("api_list_ml", "/setup")
    for _ in range(3):
        client.post("/setup", json=body)
    warnings = [record for record in caplog.records if record.message == "label config"]
    assert ["Reference" in record.problem for record in warnings] == [False, True]
    assert 'smart="false"' in warnings[0].problem


def test_a_recorded_click_comes_back_as_a_brush_region_that_label_studio_renders(client):
    body = recorded("predict_interactive_3clicks_full")["body"]
    answer = client.post("/predict", json=body).json()
    (result,) = answer["results"]
    (region,) = result["result"]
    assert region["id"] == f"rc-{body['params']['context']['result'][0]['id']}"
    assert (region["from_name"], region["to_name"], region["type"]) == ("tag", "image", "brushlabels")
    assert region["value"]["brushlabels"] == ["Cat"]
    assert np.array_equal(brush_rle.decode(region["value"]["rle"], 8, 8), MASK)
    assert region["origin"] == "prediction"


def test_a_job_carries_ids_and_clicks_but_no_token(client, queue):
    setup = backend_request("api_list_ml", "/setup") | {"access_token": "canary-token"}
    client.post("/setup", json=setup)
    client.post("/predict", json=click_body(click_result("a", 10, 20, "Door")))
    (job,) = queue.jobs
    assert (job.project_id, job.task_id, job.label, len(job.clicks)) == (7, 3, "Door", 1)
    assert "canary-token" not in str(job.to_json())


def test_opening_a_task_stores_no_prediction_and_has_the_task_prepared(client, queue, preloader):
    body = backend_request("api_open_task", "/predict")
    assert client.post("/predict", json=body).json()["results"] == []
    assert queue.jobs == []
    assert preloader.opened == [(int(body["project"].split(".")[0]), body["tasks"][0]["id"])]


class FakeNextTasks:
    """Notes which tasks were worked on, as (project, task)."""

    def __init__(self) -> None:
        self.followed: list[tuple[int, int]] = []

    def follow(self, project_id: int, task_id: int) -> None:
        self.followed.append((project_id, task_id))

    def start(self) -> None:
        """There is no thread."""

    def stop(self) -> None:
        """There is no thread."""


def test_what_comes_behind_an_opened_or_a_clicked_task_is_prepared(wiring):
    next_tasks = FakeNextTasks()
    followed = dataclasses.replace(wiring, next_tasks=next_tasks)
    opened = backend_request("api_open_task", "/predict")
    with TestClient(create_app(followed, LIMIT_BYTES)) as client:
        client.post("/predict", json=opened)
        client.post("/predict", json=click_body(click_result("a", 10, 20, "Door")))
    assert next_tasks.followed == [(int(opened["project"].split(".")[0]), opened["tasks"][0]["id"]), (7, 3)]


def test_a_prediction_that_is_requested_while_prelabelling_is_off_has_the_reason_in_header_and_log(
    client, caplog
):
    caplog.set_level("INFO", logger="refcut")
    answer = client.post("/predict", json=backend_request("api_open_task", "/predict"))
    assert answer.headers[REASON_HEADER] == "prelabel_off"
    (line,) = [record for record in caplog.records if record.message == "request"]
    assert (line.reason, line.levelname) == ("prelabel_off", "INFO")


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_a_probe_may_ask_for_the_head_only(client, queue, path):
    queue.state = queue_state(0, 1)
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_batch_of_tasks_has_none_prepared(client, preloader):
    body = backend_request("api_open_task", "/predict")
    body["tasks"] = [body["tasks"][0], body["tasks"][0] | {"id": 99}]
    assert client.post("/predict", json=body).json()["results"] == []
    assert preloader.opened == []


def test_an_empty_context_is_answered_with_one_empty_result(client, queue):
    answer = client.post("/predict", json=click_body())
    assert answer.headers[REASON_HEADER] == "no_clicks"
    assert [r["result"] for r in answer.json()["results"]] == [[]]
    assert queue.jobs == []


def test_a_click_that_no_worker_answers_gives_an_empty_result_and_the_reason(client, queue):
    queue.fails_with = ClickTimeoutError("no worker answered")
    answer = client.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    assert answer.status_code == 200
    assert answer.headers[REASON_HEADER] == "timeout"
    assert [r["result"] for r in answer.json()["results"]] == [[]]


def test_a_workers_refusal_reaches_the_caller(client, queue):
    queue.answer = ClickAnswer(error_code="image", error_message="401")
    answer = client.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    assert answer.headers[REASON_HEADER] == "image"


def test_a_region_marked_reference_is_used_by_the_next_click_of_its_label(client, queue):
    door = brush_result("d", "Door", MASK)
    body = webhook("ANNOTATION_CREATED", annotation=annotation(door, role_result(door, "Reference")))
    assert client.post("/webhook", json=body).status_code == 200
    client.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    client.post("/predict", json=click_body(click_result("b", 1, 1, "Wheel")))
    assert [len(job.reference_ids) for job in queue.jobs] == [1, 0]


@pytest.mark.parametrize(
    "end",
    [
        webhook("ANNOTATIONS_DELETED", annotations=[{"id": 11}]),
        webhook("TASKS_DELETED", tasks=[{"id": 5}]),
        webhook("ANNOTATION_UPDATED", annotation=annotation(at="2026-01-02")),
        webhook("ANNOTATION_UPDATED", annotation=annotation(at="2026-01-02", was_cancelled=True)),
    ],
)
def test_a_reference_that_is_gone_in_label_studio_is_no_longer_used(client, queue, end):
    door = brush_result("d", "Door", MASK)
    body = webhook("ANNOTATION_CREATED", annotation=annotation(door, role_result(door, "Reference")))
    client.post("/webhook", json=body)
    client.post("/webhook", json=end)
    client.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    assert queue.jobs[0].reference_ids == ()


def test_the_click_log_learns_from_the_webhook_which_masks_were_accepted(client, tmp_path):
    client.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    mask = brush_result("rc-a", "Door", MASK)
    client.post("/webhook", json=webhook("ANNOTATION_CREATED", annotation=annotation(mask)))
    engine = open_database(f"sqlite:///{tmp_path / 'refcut.db'}")
    (cost,) = ClickLog(engine).clicks_per_mask(7)
    engine.dispose()
    assert (cost.label, cost.model_version, cost.masks, cost.clicks_per_mask) == ("Door", "s14-test", 1, 1)


def test_a_mask_of_another_label_does_not_come_along(client):
    def labels(*dots: dict[str, Any]) -> list[str]:
        (result,) = client.post("/predict", json=click_body(*dots)).json()["results"]
        return [region["value"]["brushlabels"][0] for region in result["result"]]

    assert labels(click_result("a", 1, 1, "Door")) == ["Door"]
    assert labels(click_result("w", 1, 1, "Wheel")) == ["Wheel"]


@pytest.mark.parametrize("name", ["api_annotation_create", "api_annotation_delete"])
def test_recorded_webhooks_are_acknowledged(client, name):
    assert client.post("/webhook", json=backend_request(name, "/webhook")).json() == {"status": "accepted"}


def press_start_training(client: TestClient) -> dict[str, object]:
    answer = client.post("/webhook", json=backend_request("api_train", "/webhook"))
    assert answer.status_code == 200
    body: dict[str, object] = answer.json()
    return body


def test_start_training_pressed_twice_is_one_job_and_a_project_without_setup_has_none(client):
    assert "job" not in press_start_training(client)
    client.post("/setup", json=backend_request("api_list_ml", "/setup"))
    first, second = press_start_training(client), press_start_training(client)
    assert first == {"status": "accepted", "job": first["job"]} == second
    assert client.post("/job_status", json={"job": first["job"]}).json()["job_status"] == "queued"


def test_a_job_that_is_not_known_is_gone(client):
    assert client.post("/job_status", json={"job": "of-an-earlier-installation"}).status_code == 410


FORGED = ["1/../2", "", None, -1, 0, "1" * 40, "1e3", "٣", {"id": 1}, [1], True, 2**60]


@pytest.mark.parametrize("project", FORGED)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", lambda project: click_body() | {"project": project}),
        ("/setup", lambda project: {"project": project, "schema": "<View/>"}),
        ("/webhook", lambda project: webhook("TASKS_DELETED") | {"project": {"id": project}}),
    ],
)
def test_a_forged_project_id_is_a_bad_request_and_not_echoed(client, path, body, project):
    answer = client.post(path, json=body(project))
    assert answer.status_code == 400
    assert answer.json()["error"] == "bad_request"
    assert "../" not in answer.text


def test_the_label_config_and_references_of_one_project_never_answer_another(client, queue):
    door = brush_result("d", "Door", MASK)
    body = webhook("ANNOTATION_CREATED", annotation=annotation(door, role_result(door, "Reference")))
    client.post("/webhook", json=body)
    client.post("/setup", json=backend_request("api_list_ml", "/setup") | {"project": "8.1"})
    client.post("/predict", json=click_body(click_result("a", 1, 1, "Door")) | {"project": "8.1"})
    client.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    assert [(job.project_id, len(job.reference_ids)) for job in queue.jobs] == [(8, 0), (7, 1)]


def test_the_versions_route_answers_get_and_tolerates_post(client):
    assert client.get("/versions").json() == {"versions": ["s14-test"]}
    assert client.post("/versions", json={"project": "7.1"}).json() == {"versions": ["s14-test"]}


def test_the_web_process_imports_neither_torch_nor_pandas_nor_what_makes_snapshots():
    heavy = "{'torch', 'pandas', 'pycocotools', 'model.data.snapshot'}"
    script = f"import sys, refcut_backend.api.app, refcut_backend.cli.main; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_request_that_is_wrong_all_over_is_explained_briefly(client):
    answer = client.post("/predict", json={"project": "1.1", "tasks": [{"id": "no"}] * 5000})
    assert answer.status_code == 400
    assert 1 <= len(answer.json()["faults"]) <= 20
