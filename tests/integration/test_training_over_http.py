"""What the web process says of trainings, and how fast it answers events."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from refcut_backend.queue.heartbeats import WorkerState
from refcut_backend.queue.rq_jobs import TRAINING_QUEUE
from refcut_backend.training.runs import Outcome, RequestedBy, Stage
from tests.support.fake_wiring import CREATED, queue_state
from tests.support.recorded import LABEL_CONFIG, brush_result
from tests.support.registry import square

SETUP = {
    "project": f"7.{CREATED}",
    "schema": LABEL_CONFIG,
    "hostname": "http://ls",
    "access_token": "canary-token",
}


def samples(client) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


@pytest.fixture
def runs(client, wiring):
    client.post("/setup", json=SETUP)
    return wiring.training.runs


def press(client, project: int = 7) -> dict:
    return client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": project}}).json()


def test_the_status_tells_how_far_a_training_is(client, runs):
    reply = press(client)
    claim = runs.claim(reply["job"], "trainer")
    runs.progress(claim, Stage.TRAINING, 3, 10, 42.0, {"loss": 0.5})
    run = client.get("/status").json()["training"]["projects"]["7"]["run"]
    assert (run["id"], run["asked_by"], run["stage"]) == (reply["job"], RequestedBy.BUTTON, "training")
    assert (run["step"], run["steps"], run["eta_s"], run["metrics"]) == (3, 10, 42.0, {"loss": 0.5})
    assert client.post("/job_status", json={"job": reply["job"]}).json()["job_status"] == "started"


def test_the_status_tells_why_a_model_was_not_promoted_or_a_training_failed(client, runs):
    for outcome, reason in ((Outcome.NOT_PROMOTED, "worse on 'Door'"), (Outcome.FAILED, "the disk is full")):
        job = press(client)["job"]
        runs.end(runs.claim(job, "trainer"), outcome, reason, "s14-1234abcd")
        run = client.get("/status").json()["training"]["projects"]["7"]["run"]
        assert (run["outcome"], run["reason"], run["version"]) == (outcome, reason, "s14-1234abcd")
    assert client.post("/job_status", json={"job": job}).json()["error"] == "the disk is full"


def test_the_button_pressed_twice_is_one_training(client, runs):
    assert press(client)["job"] == press(client)["job"]
    assert len(runs.latest(7, 10)) == 1


def test_after_the_end_of_a_training_the_button_begins_another(client, runs):
    first = press(client)["job"]
    runs.end(runs.claim(first, "trainer"), Outcome.NOT_PROMOTED, "")
    assert press(client)["job"] != first


def test_the_status_tells_how_much_is_new_and_whether_anybody_trains(client, runs, queue):
    trainer = WorkerState("t", (TRAINING_QUEUE,), ready=True)
    queue.state = replace(queue_state(0, 0), workers=(trainer,))
    annotation = {
        "id": 1,
        "task": 1,
        "updated_at": "2026-01-01T00:00:00Z",
        "result": [brush_result("a", "Door", square(5))],
    }
    project = {"id": 7, "label_config": LABEL_CONFIG}
    body = {"action": "ANNOTATION_CREATED", "project": project, "annotation": annotation, "task": {"id": 1}}
    client.post("/webhook", json=body)
    status = client.get("/status").json()["training"]
    assert status["workers"] == 1
    assert status["projects"]["7"] == {"annotations": 1, "new_annotations": 1, "run": None}


def test_prometheus_has_trainings_by_stage_and_outcome_and_no_more_series_with_more_projects(client, runs):
    before = set(samples(client))
    for project in (17, 18, 19):
        client.post("/setup", json=SETUP | {"project": f"{project}.1"})
        job = press(client, project)["job"]
        runs.end(runs.claim(job, "trainer"), Outcome.NOT_PROMOTED, "no better")
    press(client)
    found = samples(client)
    assert found["refcut_trainings_ended_total", "kept"] == 3
    assert found["refcut_trainings_ended_total", "promoted"] == 0
    assert found["refcut_trainings", "queued"] == 1
    assert {name for name in set(found) - before if name[0].startswith("refcut_training")} == set()


def test_status_and_metrics_answer_without_redis_and_say_nothing_secret(client, runs, queue):
    queue.state = None
    press(client)
    assert client.get("/status").json()["training"]["workers"] is None
    text = client.get("/status").text + client.get("/metrics").text
    assert "canary" not in text


@pytest.mark.parametrize("project", ["1/../2", "9" * 40, None, [7], -1])
def test_a_forged_project_is_trained_by_nobody(client, runs, project):
    answer = client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": project}})
    assert answer.status_code == 400
    assert runs.all_under_way() == []


def test_the_button_of_one_project_trains_no_other(client, runs):
    press(client)
    assert [run.project_id for run in runs.all_under_way()] == [7]
    assert press(client, 8)["status"] == "not_connected"


def test_the_button_is_an_event_for_each_training_that_it_began(client, runs, wiring, tmp_path):
    jobs = []
    for _ in range(2):
        press(client)
        jobs.append(press(client)["job"])
        runs.end(runs.claim(jobs[-1], "trainer"), Outcome.NOT_PROMOTED, "")
    with sqlite3.connect(tmp_path / "refcut.db") as database:
        query = "SELECT subject_id, said_at FROM webhook_events WHERE action = 'START_TRAINING' ORDER BY id"
        assert database.execute(query).fetchall() == [(7, job) for job in jobs]
    database.close()
