"""Label Studio asks for predictions without a click: one task when it is opened, many in a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from fastapi.testclient import TestClient

from refcut_backend.api.app import create_app
from refcut_backend.api.handlers import REASON_HEADER
from refcut_backend.errors import ImageError, NoReferenceError
from refcut_backend.prelabeling.batch import PrelabelRules
from tests.support.fake_wiring import FakePrelabeller, FakeQueue, click_body, wiring_on

MakeClient = Callable[[PrelabelRules], TestClient]


@pytest.fixture
def prelabeller() -> FakePrelabeller:
    return FakePrelabeller()


@pytest.fixture
def make_client(tmp_path, prelabeller) -> Iterator[MakeClient]:
    with ExitStack() as stack:

        def make(rules: PrelabelRules) -> TestClient:
            wiring = stack.enter_context(
                wiring_on(tmp_path, FakeQueue(), prelabeller=prelabeller, prelabel_rules=rules)
            )
            app = create_app(wiring, 1_000_000)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield make


def predict(client: TestClient, *tasks: int):
    """As Label Studio sends it, without a click."""
    listed = [{"id": task, "data": {"image": f"/data/upload/1/{task}.jpg"}} for task in tasks]
    return client.post("/predict", json=click_body(tasks=listed, params={"context": None}))


def found_on(answer) -> list[str]:
    """Which task each entry is about; "" for entries that Label Studio stores nothing of."""
    return [entry["result"][0]["id"] if entry else "" for entry in answer.json()["results"]]


def test_off_by_default_nothing_is_computed_or_stored(make_client, prelabeller):
    client = make_client(PrelabelRules())
    for tasks in ([1], [1, 2, 3]):
        assert predict(client, *tasks).json()["results"] == []
    assert not prelabeller.tasks


def test_open_answers_for_the_task_that_is_opened_and_not_for_batches(make_client, prelabeller):
    client = make_client(PrelabelRules("open"))
    assert found_on(predict(client, 5)) == ["of-5"]
    batch = predict(client, 6, 7)
    assert batch.json()["results"] == [[], []]
    assert batch.headers[REASON_HEADER] == "prelabel_open_only"
    assert [task.task_id for task in prelabeller.tasks] == [5]


def test_a_batch_of_any_size_has_exactly_one_result_a_task_in_their_order(make_client):
    client = make_client(PrelabelRules("batch"))
    for count in (1, 2, 13):
        tasks = [100 - number for number in range(count)]
        assert found_on(predict(client, *tasks)) == [f"of-{task}" for task in tasks]


def test_a_task_that_fails_has_an_empty_result_and_a_reason_in_the_header(make_client, prelabeller):
    prelabeller.problems = {
        2: ImageError("canary-inside"),
        3: NoReferenceError("none"),
        4: ImageError("damaged"),
    }
    answer = predict(make_client(PrelabelRules("batch")), 1, 2, 3, 4, 5)
    assert found_on(answer) == ["of-1", "", "", "", "of-5"]
    assert answer.headers[REASON_HEADER] == "image, no_reference"
    assert "canary" not in answer.text


def test_at_the_deadline_a_batch_is_answered_with_what_is_done(make_client, prelabeller):
    prelabeller.gate = threading.Event()
    answer = predict(make_client(PrelabelRules("batch", batch_limit_s=0.2)), *range(1, 10))
    assert found_on(answer) == [""] * 9
    assert answer.headers[REASON_HEADER] == "timeout"


def test_an_opened_task_waits_by_a_limit_of_its_own(make_client, prelabeller):
    prelabeller.gate = threading.Event()
    answer = predict(make_client(PrelabelRules("open", open_limit_s=0.1)), 1)
    assert (answer.json()["results"], answer.headers[REASON_HEADER]) == ([[]], "timeout")


def test_health_and_setup_are_answered_while_a_batch_is_computed(make_client, prelabeller):
    client = make_client(PrelabelRules("batch"))
    prelabeller.gate = threading.Event()
    batch = threading.Thread(target=predict, args=(client, 1, 2))
    batch.start()
    try:
        assert client.get("/health").status_code == 200
    finally:
        prelabeller.gate.set()
        batch.join()
