from __future__ import annotations

import pytest

from tests.support.fake_services import click_body
from tests.support.recorded import click_result

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
    answer = client.post("/predict", json=click_body(click_result("a", 1, 1, name)))
    assert answer.headers["Content-Type"] == "application/json"
    assert "<script>" not in answer.text
    assert "<script>" not in client.get("/status").text + client.get("/metrics").text
