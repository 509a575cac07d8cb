from __future__ import annotations

import re
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from refcut_backend.errors import ClickTimeoutError, QueueNotWritableError
from tests.support.fake_wiring import click_body, queue_state
from tests.support.recorded import backend_request, click_result


def click(client, label: str = "Door", **more: object):
    return client.post("/predict", json=click_body(click_result("a", 1, 1, label), **more))


def samples(client) -> dict[tuple[str, ...], float]:
    """Prometheus' own reading of /metrics: name and label values to value."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_health_answers_without_redis(client, queue):
    queue.state = None
    assert client.get("/health").json()["status"] == "UP"
    assert client.get("/livez").json() == {"status": "alive"}


@pytest.mark.parametrize(
    ("state", "workers", "status"),
    [(None, 0, 503), (queue_state(0, 0), 0, 503), (queue_state(5, 2), 2, 200)],
)
def test_it_is_ready_when_redis_database_and_a_worker_are(client, queue, state, workers, status):
    queue.state = state
    answer = client.get("/readyz")
    assert answer.status_code == status
    redis_up = "down" if state is None else "up"
    assert answer.json() == {"redis": redis_up, "database": "up", "workers": workers}


def test_it_is_not_ready_while_redis_refuses_to_write_and_says_so(client, queue, monkeypatch):
    error = QueueNotWritableError("Redis has no memory left", hint="raise `maxmemory`")
    monkeypatch.setattr(queue, "problem", error)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["redis"]) == (503, "not writable: Redis has no memory left")
    assert client.get("/status").json()["queue"] == {"redis": "not writable: Redis has no memory left"}
    assert samples(client)["refcut_redis_up",] == 0


def test_it_is_not_ready_without_its_database(client, queue, tmp_path):
    queue.state = queue_state(0, 1)
    for file in tmp_path.glob("refcut.db*"):
        file.write_bytes(b"no database" * 1000)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["database"]) == (503, "down")


def test_clicks_are_counted_by_outcome_and_timed_by_phase(client, queue):
    click(client)
    click(client)
    click(client, label="No such label")
    client.post("/predict", json=click_body())
    queue.fails_with = ClickTimeoutError("no worker answered")
    click(client)
    found = samples(client)
    assert found["refcut_clicks_total", "answered"] == 2
    assert found["refcut_clicks_total", "label_config"] == 1
    assert found["refcut_clicks_total", "no_clicks"] == 1
    assert found["refcut_clicks_total", "timeout"] == 1
    for phase in ("network", "queue", "http", "total"):
        assert found["refcut_click_phase_seconds_count", phase] == 2
    assert found["refcut_click_phase_seconds_sum", "network"] == pytest.approx(0.16)


def test_a_task_that_is_opened_is_no_click(client):
    client.post("/predict", json=backend_request("api_open_task", "/predict"))
    assert not [name for name, *_ in samples(client) if name == "refcut_clicks_total"]


def test_queue_and_workers_are_read_when_prometheus_scrapes(client, queue):
    assert samples(client)["refcut_redis_up",] == 0
    queue.state = queue_state(3, 2, click_s=0.75)
    found = samples(client)
    assert found["refcut_redis_up",] == 1
    assert found["refcut_expected_wait_seconds",] == 1.5
    assert found["refcut_queue_depth",] == 3
    assert found["refcut_workers_ready",] == 2


def test_versions_of_server_and_model_are_metrics(client):
    (build,) = [labels for name, *labels in samples(client) if name == "refcut_build_info"]
    assert "s14-test" in build


def test_what_users_write_makes_no_new_series(client):
    click(client)
    client.get("/not-there")
    before = set(samples(client))
    for number in range(30):
        click(client, label=f"label {number}", task=number + 1)
        click(client, task=number + 1, project=f"{number + 1}.5")
        client.get(f"/page-{number}")
    new = set(samples(client)) - before
    assert {name[1] for name in new} <= {"label_config", "not_connected", "/metrics", "/predict"}


def test_the_status_tells_versions_queue_outcomes_and_percentiles(client, queue):
    queue.state = queue_state(3, 2, click_s=0.75)
    for number in range(20):
        queue.answer = replace(queue.answer, milliseconds={"network": 10.0 * (number + 1)})
        click(client)
    click(client, label="No such label")
    status = client.get("/status").json()
    assert status["model_version"] == "s14-test"
    assert status["queue"] == {
        "redis": "up",
        "waiting": 3,
        "oldest_waiting_s": 2.0,
        "ready_workers": 2,
        "expected_wait_s": 1.5,
        "outcomes_of_all_web_servers": {"busy": 7},
    }
    assert status["clicks"] == {"answered": 20, "label_config": 1}
    network = status["milliseconds"]["network"]
    assert (network["p50"], network["p95"], network["clicks"]) == (105.0, 190.5, 20)
    assert status["uptime_s"] >= 0


def test_the_status_says_that_redis_is_down(client):
    assert client.get("/status").json()["queue"] == {"redis": "down"}


def test_neither_status_nor_metrics_nor_readiness_tell_secrets(client):
    setup = backend_request("api_list_ml", "/setup") | {"access_token": "canary-token"}
    client.post("/setup", json=setup)
    click(client, label="canary-label", params={"login": "canary", "password": "canary", "context": None})
    text = "".join(client.get(path).text for path in ("/status", "/metrics", "/readyz"))
    assert not re.search("canary", text)
