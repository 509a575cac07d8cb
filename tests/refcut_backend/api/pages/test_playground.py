"""The playground over HTTP."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from refcut_backend.api.app import create_app
from refcut_backend.api.auth import Access
from refcut_backend.api.pages.playground import DECODING_THREADS
from refcut_backend.errors import BusyError
from refcut_backend.playground import service
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.fake_wiring import FakeQueue


@pytest.fixture
def here(wiring) -> Iterator[TestClient]:
    """A browser on the machine of the backend."""
    with TestClient(create_app(wiring, LIMIT_BYTES), client=("127.0.0.1", 50000)) as client:
        yield client


def png(height: int = 30, width: int = 40, value: int = 120) -> str:
    ok, data = cv2.imencode(".png", np.full((height, width, 3), value, np.uint8))
    assert ok
    return base64.b64encode(data.tobytes()).decode()


def test_the_page_and_all_that_it_needs_come_from_the_backend_alone(here: TestClient) -> None:
    page = here.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "https://" not in page.text
    assert " style=" not in page.text
    for name in (
        "playground.js",
        "playground-clicks.js",
        "api.js",
        "mask.js",
        "photo-view.js",
        "pages.css",
        "mark.svg",
    ):
        assert here.get(f"/static/{name}").status_code == 200, name
    assert here.get("/static/..%2Ffiles.py").status_code == 404


def test_a_reference_that_is_gone_is_named_when_a_task_is_written(here: TestClient) -> None:
    image = here.post("/playground/images", json={"data": png()}).json()["image"]
    body = {"image": image, "name": "car.jpg", "region": "r", "label": "Wheel", "mask": png(value=255)}
    body |= {"score": 0.5, "model_version": "m"}
    (task,) = here.post("/playground/tasks", json=body).json()
    assert task["data"] == {"image": "car.jpg"}
    gone = [{"reference": "gone", "name": "other.jpg"}]
    refused = here.post("/playground/tasks", json=body | {"references": gone})
    assert refused.status_code == 422
    assert refused.json()["message"] == "1 of the references are no longer on the playground"
    assert here.post("/playground/tasks", json=body | {"mask": png(10, 10)}).status_code == 422


def test_from_a_photograph_to_a_mask(here: TestClient, queue: FakeQueue) -> None:
    added = here.post("/playground/images", json={"data": png()}).json()
    assert (added["height"], added["width"]) == (30, 40)
    file = here.post("/playground/photograph", json={"image": added["image"]})
    assert file.headers["content-type"] == "image/png"
    assert file.content == base64.b64decode(png())
    marked = here.post(
        "/playground/references", json={"image": added["image"], "positive": png(value=255)}
    ).json()
    answer = here.post(
        "/playground/clicks",
        json={
            "image": added["image"],
            "session": "s",
            "clicks": [{"x": 50, "y": 50}],
            "references": [marked["reference"]],
        },
    ).json()
    mask = cv2.imdecode(np.frombuffer(base64.b64decode(answer["mask"]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(mask > 0, np.eye(8, dtype=bool))
    assert answer["expected_iou"] == 0.9
    assert answer["milliseconds"] == {"network": 80.0}
    assert len(queue.jobs[0].reference_ids) == 1


def test_a_photograph_that_is_shown_is_prepared(here: TestClient, queue: FakeQueue) -> None:
    added = here.post("/playground/images", json={"data": png()}).json()
    answer = here.post("/playground/preloads", json={"image": added["image"], "references": []})
    assert answer.json() == {"asked": True}
    assert [job.image_addresses for job in queue.preloads.jobs] == [(f"playground:{added['image']}",)]


def test_probabilities_come_along_only_if_they_are_asked_for(here: TestClient, queue: FakeQueue) -> None:
    queue.answer = replace(queue.answer, map_png="iVBO")
    added = here.post("/playground/images", json={"data": png()}).json()
    body = {"image": added["image"], "session": "s", "clicks": [{"x": 50, "y": 50}]}
    assert here.post("/playground/clicks", json=body | {"wants_map": True}).json()["map"] == "iVBO"
    here.post("/playground/clicks", json=body)
    assert [job.wants_map for job in queue.jobs] == [True, False]


def test_the_demo_is_there_to_be_clicked_on(here: TestClient) -> None:
    (first, *_) = here.get("/playground/demo").json()["photographs"]
    assert "Wheel" in first["labels"]
    added = here.post("/playground/images", json={"demo": first["name"]}).json()
    assert added["image"].startswith("demo-")
    marked = here.post("/playground/references", json={"demo": first["name"], "label": "Wheel"}).json()
    assert marked["reference"]


def test_a_refusal_says_why_and_what_helps(here: TestClient, queue: FakeQueue) -> None:
    queue.fails_with = BusyError("9 clicks wait already", hint="click again")
    body = {"image": "x", "session": "s", "clicks": [{"x": 50, "y": 50}]}
    refused = here.post("/playground/clicks", json=body)
    assert refused.status_code == 422
    assert refused.json() == {"error": "busy", "message": "9 clicks wait already", "hint": "click again"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("images", {"data": "no base64!"}),
        ("images", {}),
        ("images", {"data": base64.b64encode(b"<svg onload=alert(1)>").decode()}),
        ("photograph", {"image": "unknown"}),
        ("references", {"image": "unknown", "positive": png()}),
        ("references", {"demo": "<script>", "label": "<b>"}),
        ("clicks", {"image": "x", "session": "s", "clicks": [], "references": []}),
        ("clicks", {"image": "x", "session": "s", "clicks": [{"x": 1, "y": 1}], "references": ["7"]}),
        ("preloads", {"image": "x", "references": ["7"]}),
    ],
)
def test_bad_input_is_refused_with_a_hint(here: TestClient, path: str, body: dict[str, object]) -> None:
    refused = here.post(f"/playground/{path}", json=body)
    assert refused.status_code == 422
    assert refused.json()["hint"]


def test_a_form_of_another_site_changes_nothing(here: TestClient) -> None:
    forged = here.post("/playground/images", content=b"{}", headers={"Content-Type": "text/plain"})
    assert forged.status_code == 415


def test_without_a_password_the_pages_are_for_this_machine_only(wiring) -> None:
    with TestClient(create_app(wiring, LIMIT_BYTES), client=("192.0.2.7", 50000)) as elsewhere:
        for path in ("/", "/static/pages.css", "/playground/demo"):
            refused = elsewhere.get(path)
            assert refused.status_code == 403, path
            assert "REFCUT_BASIC_AUTH_PASSWORD" in refused.json()["detail"]
        assert elsewhere.get("/health").status_code == 200


def test_with_a_password_they_need_it_and_are_for_everybody(wiring) -> None:
    access = Access(basic=frozenset({b"team:secret"}))
    with TestClient(create_app(wiring, LIMIT_BYTES, access), client=("192.0.2.7", 50000)) as elsewhere:
        assert elsewhere.get("/").status_code == 401
        assert elsewhere.get("/", auth=("team", "secret")).status_code == 200


def test_a_key_of_a_photograph_is_in_no_log_line(here: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    added = here.post("/playground/images", json={"data": png()}).json()
    here.post("/playground/photograph", json={"image": added["image"]})
    assert added["image"] not in "".join(f"{record.__dict__}" for record in caplog.records)


def test_few_photographs_are_decoded_at_once_however_many_are_sent(
    here: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most = 0, 0
    counting = threading.Lock()
    original = service.decode_image

    def decode(*arguments: Any) -> Any:
        nonlocal at_once, most
        with counting:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.05)
        found = original(*arguments)
        with counting:
            at_once -= 1
        return found

    monkeypatch.setattr(service, "decode_image", decode)
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: here.post("/playground/images", json={"data": png()}), range(8)))
    assert all(answer.status_code == 200 for answer in answers)
    assert most == DECODING_THREADS
