"""Requests of Label Studio with random faults: other values, other types, missing and repeated parts, broken bytes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi.testclient import TestClient

from tests.support.fake_wiring import MASK, click_body
from tests.support.recorded import backend_request, brush_result, click_result, recorded, role_result

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**53,
    2**63,
    2**70,
    1e308,
    -0.0,
    1.5,
    "",
    "0",
    "\0",
    "a\0b",
    "\\u0000",
    "\u202e\U0001f600",
    "x" * 600,
    "x" * 5000,
    "2026-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59Z",
    "7.1795343347",
    "../../etc/passwd",
    "' OR 1=1 --",
    "<script>",
    "http://[",
    "https://u:p@h/?s=1",
    [],
    {},
    [[]],
    [None],
    {"": {}},
    [1, "a", None, {}],
)
EXPECTED = frozenset({200, 400, 404, 405, 410, 413, 415})


@dataclass(frozen=True)
class FuzzedRequest:
    """A request that may be anything."""

    path: str
    body: bytes


def _bodies() -> list[tuple[str, Any]]:
    door = brush_result("d", "Door", MASK)
    annotation = {
        "id": 11,
        "result": [door, role_result(door, "Reference")],
        "updated_at": "2026-01-01T00:00:00Z",
        "task": 5,
        "was_cancelled": False,
        "completed_by": 1,
    }
    project = backend_request("api_annotation_create", "/webhook")["project"]
    task = {"id": 5, "data": {"image": "/data/upload/1/ref.jpg"}}
    deleted = {"action": "ANNOTATIONS_DELETED", "project": project, "annotations": [{"id": 11}, {"id": 12}]}
    return [
        ("/setup", backend_request("api_list_ml", "/setup")),
        ("/predict", backend_request("api_open_task", "/predict")),
        ("/predict", recorded("predict_interactive_3clicks_full")["body"]),
        ("/predict", click_body(click_result("a", 10, 20, "Door"), click_result("b", 30, 40, "Door"))),
        ("/webhook", backend_request("api_annotation_create", "/webhook")),
        (
            "/webhook",
            {"action": "ANNOTATION_UPDATED", "project": project, "task": task, "annotation": annotation},
        ),
        ("/webhook", backend_request("api_train", "/webhook")),
        ("/webhook", deleted),
        ("/webhook", {"action": "TASKS_DELETED", "project": project, "tasks": [{"id": 5}]}),
        ("/webhook", {"action": "PROJECT_UPDATED", "project": project}),
        ("/job_status", {"job": "20260101-000000-abcd"}),
    ]


def fuzzed_requests(number: int, seed: int = 0) -> Iterator[FuzzedRequest]:
    """Yields requests; the same ones for the same seed."""
    source = random.Random(seed)
    bodies = _bodies()
    for _ in range(number):
        path, body = source.choice(bodies)
        changed = copy.deepcopy(body)
        for _ in range(source.choice((1, 1, 2, 4))):
            changed = _changed(changed, source)
        data = json.dumps(changed).encode()
        if source.random() < 0.1:
            data = _broken(data, source)
        yield FuzzedRequest(source.choice((path,) * 9 + ("/setup",)), data)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with one of its keys. Of long lists, as masks are, only the beginning."""
    keys = list(value) if isinstance(value, dict) else list(range(min(len(value), 5)))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def _changed(body: Any, source: random.Random) -> Any:
    if not isinstance(body, (dict, list)) or not body:
        return source.choice(ODD)
    container, key = source.choice(list(_places(body)))
    match source.randrange(6):
        case 0:
            del container[key]
        case 1:
            container[key] = [container[key]] * source.choice((1, 2, 50))
        case 2:
            other_container, other_key = source.choice(list(_places(body)))
            container[key] = copy.deepcopy(other_container[other_key])
        case 3 if isinstance(container, dict):
            container[source.choice(("id", "x" * 300, "\0", "data"))] = container[key]
        case _:
            container[key] = copy.deepcopy(source.choice(ODD))
    return body


def _broken(data: bytes, source: random.Random) -> bytes:
    at = source.randrange(len(data) + 1)
    with suppress(IndexError):
        return source.choice(
            (
                data[:at],
                data[:at] + bytes([source.randrange(256)]) + data[at + 1 :],
                data + data,
                b"[" * 2000 + data,
                data.replace(b":", b": NaN,", 1),
            )
        )
    return data


def faults_of(client: TestClient, requests: Iterator[FuzzedRequest]) -> list[str]:
    """Sends requests; returns one line for each that got an answer that no request should get."""
    faults = []
    for number, request in enumerate(requests):
        answer = client.post(request.path, content=request.body, headers={"Content-Type": "application/json"})
        if answer.status_code not in EXPECTED:
            faults.append(
                f"{number}: {request.path} {answer.status_code} {answer.text[:200]} {request.body[:2000]!r}"
            )
    return faults
