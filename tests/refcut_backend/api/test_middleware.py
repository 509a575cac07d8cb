"""tests/refcut_backend/api/test_middleware.py."""

from __future__ import annotations

import logging
from html import escape

import pytest

from refcut_backend.api.middleware import ID_HEADER
from refcut_backend.errors import ClickTimeoutError
from tests.support.fake_wiring import click_body
from tests.support.recorded import LABEL_CONFIG, backend_request, click_result


@pytest.fixture(autouse=True)
def _all_lines(caplog) -> None:
    caplog.set_level(logging.INFO, logger="refcut")


def lines(caplog) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.message == "request"]


def test_a_click_is_one_line_with_where_its_time_went(client, caplog):
    body = click_body(click_result("a", 1, 1, "Door"))
    answer = client.post("/predict", json=body)
    (line,) = lines(caplog)
    assert (line.project, line.task, line.label, line.clicks) == (7, 3, "Door", 1)
    assert (line.method, line.path, line.status, line.outcome) == ("POST", "/predict", 200, "answered")
    assert line.id == answer.headers[ID_HEADER]
    assert line.bytes_in == len(answer.request.content)
    assert line.bytes_out == len(answer.content)
    assert set(line.milliseconds) == {"network", "queue", "http"}
    assert sum(line.milliseconds.values()) == pytest.approx(line.total_ms, abs=0.3)
    assert line.levelno == logging.INFO


def test_a_click_that_was_not_answered_is_a_warning_with_the_reason(client, queue, caplog):
    queue.fails_with = ClickTimeoutError("no worker answered")
    client.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    (line,) = lines(caplog)
    assert (line.levelno, line.outcome, line.problem) == (logging.WARNING, "timeout", "no worker answered")
    assert set(line.milliseconds) == {"queue", "http"}


def test_a_setup_and_a_webhook_are_one_line_each_with_their_project(client, caplog):
    client.post("/setup", json=backend_request("api_list_ml", "/setup"))
    client.post("/webhook", json=backend_request("api_train", "/webhook"))
    setup, webhook = lines(caplog)
    assert setup.project == 2
    assert webhook.action == "START_TRAINING"


def test_probes_leave_no_line_unless_something_is_wrong(client, queue, caplog):
    client.get("/health")
    client.get("/livez")
    client.get("/readyz")
    (line,) = lines(caplog)
    assert (line.path, line.status) == ("/readyz", 503)


def test_an_unexpected_failure_is_500_with_an_id_and_the_log_alone_has_the_traceback(client, queue, caplog):
    queue.fails_with = KeyError("canary-inside")
    answer = client.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    assert answer.status_code == 500
    assert answer.json()["id"] == answer.headers[ID_HEADER]
    assert "canary" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    (failed,) = [record for record in caplog.records if record.message == "request failed"]
    assert failed.id == answer.json()["id"]
    assert failed.exc_info is not None
    (line,) = lines(caplog)
    assert (line.levelno, line.status, line.outcome) == (logging.ERROR, 500, "failed")


def test_work_after_the_answer_is_not_counted_as_waiting(client, wiring, caplog, monkeypatch):
    applied = []
    monkeypatch.setattr(wiring.follower, "apply", lambda webhook: applied.append(len(lines(caplog))))
    client.post("/webhook", json=backend_request("api_annotation_create", "/webhook"))
    assert applied == [1]


def test_a_webhook_whose_work_fails_was_acknowledged_and_is_logged(client, wiring, caplog, monkeypatch):
    def fail(_webhook: object) -> None:
        raise KeyError("inside")

    monkeypatch.setattr(wiring.follower, "apply", fail)
    answer = client.post("/webhook", json=backend_request("api_annotation_create", "/webhook"))
    assert answer.json() == {"status": "accepted"}
    assert [record.message for record in caplog.records].count("request failed") == 1
    (line,) = lines(caplog)
    assert line.status == 200


def test_a_bad_request_is_a_warning_with_the_field_and_without_its_value(client, caplog):
    client.post("/setup", json={"project": "canary/../2"})
    (line,) = lines(caplog)
    assert (line.levelno, line.status, line.outcome) == (logging.WARNING, 400, "bad_request")
    assert line.faults[0]["field"] == "project"
    assert "canary" not in str(line.__dict__)


POSTS = ["/setup", "/predict", "/webhook", "/versions"]


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/metrics", "/status", "/no-such-page"])
def test_every_answer_tells_browsers_to_run_nothing_and_guess_nothing(client, path):
    headers = client.get(path).headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "text/plain;application/json",
        "application/x-www-form-urlencoded",
        "application/jsonp",
    ],
)
def test_what_a_form_of_another_site_can_send_is_refused(client, path, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post(path, content=b'{"project": "1"}', headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["hint"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_page_of_another_site_is_not_allowed_to_ask(client):
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = client.options("/predict", headers=asked)
    assert answer.status_code == 405
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_label_that_is_markup_comes_back_as_json_and_nothing_else(client):
    name = "<script>alert(1)</script>"
    config = LABEL_CONFIG.replace('"Door"', f'"{escape(name)}"')
    answer = client.post("/predict", json=click_body(click_result("a", 1, 1, name), label_config=config))
    (region,) = answer.json()["results"][0]["result"]
    assert region["value"]["brushlabels"] == [name]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "<script>" not in client.get("/status").text + client.get("/metrics").text
