from __future__ import annotations

import json

import pytest

from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.fake_services import click_body
from tests.support.recorded import click_result

PATHS = ["/setup", "/predict", "/webhook"]
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", PATHS)
def test_a_body_over_the_limit_is_refused_with_a_hint(client, path):
    answer = client.post(path, content=b" " * (LIMIT_BYTES + 1), headers=JSON)
    assert answer.status_code == 413
    assert "REFCUT_REQUEST_MAX_BYTES" in answer.text


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_does_not_say_how_long_it_is_is_refused_as_soon_as_it_is_too_long(client, path):
    sent = []

    def endless():
        for _ in range(50):
            sent.append(1)
            yield b" " * (LIMIT_BYTES // 10)

    answer = client.post(path, content=endless(), headers=JSON)
    assert answer.status_code == 413
    assert "REFCUT_REQUEST_MAX_BYTES" in answer.text


@pytest.mark.parametrize("declared", ["100000000", "-1", "a", ""])
def test_a_declared_length_that_is_too_long_or_no_number_is_refused_unread(client, declared):
    answer = client.post("/predict", content=b"{}", headers=JSON | {"Content-Length": declared})
    assert answer.status_code == 413


def test_a_click_with_masks_up_to_the_limit_is_answered(client, queue):
    mask = {"id": "r", "type": "brushlabels", "value": {"format": "rle", "rle": [255] * 10_000}}
    body = click_body(click_result("a", 1, 1, "Door"))
    size = len(json.dumps(body))
    while size < LIMIT_BYTES - 60_000:
        body["tasks"][0].setdefault("drafts", []).append({"id": 1, "result": [mask]})
        size = len(json.dumps(body))
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200
    assert len(answer.json()["results"][0]["result"]) == 1
