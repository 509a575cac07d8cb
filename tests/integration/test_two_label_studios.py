"""Two Label Studios on one backend, each with a project 7 of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from refcut_backend.api.handlers import REASON_HEADER
from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.errors import RefCutError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import open_image_cache
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.images.uploads import Uploads
from refcut_backend.label_studio.tasks import AnotherProjectError
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis
from refcut_backend.references.owner_rules import Action, OwnerRule
from refcut_backend.settings import Settings
from refcut_backend.training.holdout import Split, SplitStore
from refcut_backend.training.runs import RequestedBy, TrainingRuns
from refcut_backend.wiring import wire_backend
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.recorded import LABEL_CONFIG, backend_request, click_result
from tests.support.registry import DOOR, MOVED, marked
from tests.support.web_process import Web, setup_body, wait_until, web_process

FIRST, SECOND = 7, 1_000_000_000_007
CREATED = {FIRST: "1795342440", SECOND: "1795342500"}
TOKENS = {FIRST: "a" * 40, SECOND: "b" * 40}


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with EmbeddedRedis() as server:
        check_redis(server.url)
        connection = connect_redis(server.url)
        yield connection
        connection.close()


@dataclass
class Studios:
    """Both Label Studios; `urls` of their webhooks and requests carry the time at which their project was created."""

    first: LabelStudioApi
    second: LabelStudioApi

    def setup(self, web: Web) -> None:
        """Both connect; in the second one the label was marked elsewhere."""
        for api, one in ((self.first, FIRST), (self.second, SECOND)):
            body = setup_body(api, created=CREATED[one])
            web.client.post("/setup", json=body).raise_for_status()


@pytest.fixture
def studios() -> Iterator[Studios]:
    first = LabelStudioApi(7, TOKENS[FIRST], "2026-11-22T10:14:00.311499Z")
    second = LabelStudioApi(7, TOKENS[SECOND], "2026-11-22T10:15:00.999999Z")
    with serving(first), serving(second):
        yield Studios(first, second)


def click_reason(web: Web, created: str | None) -> str:
    project = "7" if created is None else f"7.{created}"
    body = {
        "tasks": [{"id": 99, "data": {"image": "/data/upload/99.png"}}],
        "project": project,
        "label_config": LABEL_CONFIG,
        "params": {"context": {"result": [click_result("a", 10, 20, "Door")]}},
    }
    return web.client.post("/predict", json=body).headers[REASON_HEADER]


def test_two_label_studios_with_the_same_project_number_work_side_by_side(tmp_path, redis, studios):
    with web_process(tmp_path, redis) as web:
        studios.setup(web)
        web.client.post("/webhook", json=studios.first.annotate(1, 10, DOOR, marked(DOOR)))
        web.client.post("/webhook", json=studios.second.annotate(1, 10, MOVED, marked(MOVED)))
        for _ in range(2):
            (first,) = web.references_of_a_click(created=CREATED[FIRST])
            (second,) = web.references_of_a_click(created=CREATED[SECOND])
            assert first != second
            assert [job.project_id for job in web.jobs[-2:]] == [FIRST, SECOND]
            stored = [web.references.load(one) for one in (first, second)]
            assert [one.project_id for one in stored if one is not None] == [FIRST, SECOND]
            studios.setup(web)
        web.client.post("/webhook", json=studios.first.delete_annotation(1))
        assert web.references_of_a_click(created=CREATED[FIRST]) == ()
        assert web.references_of_a_click(created=CREATED[SECOND]) == (second,)


def test_each_image_is_fetched_from_its_own_label_studio_with_its_own_token(tmp_path, redis, studios):
    with web_process(tmp_path, redis) as web:
        studios.setup(web)
    settings = Settings(state_dir=tmp_path)
    engine = open_database(settings.database)
    images = open_image_cache(settings, Projects(engine), Addresses(engine), Uploads(engine))
    for one, api, other in (
        (FIRST, studios.first, studios.second),
        (SECOND, studios.second, studios.first),
    ):
        before = len(other.requests)
        with pytest.raises(RefCutError, match="404"):  # 401 with the other's token
            images.open(TaskImage(one, 99, "/data/upload/99.png"))
        assert "/data/upload/99.png" in api.requests
        assert len(other.requests) == before
    engine.dispose()


def test_a_number_used_again_deletes_nothing_and_gets_nothing_of_the_former_project(tmp_path, redis, studios):
    with web_process(tmp_path, redis) as web:
        web.client.post("/setup", json=setup_body(studios.first, {"pin": {"Door": [{"task": 10}]}}))
        web.client.post("/webhook", json=studios.first.annotate(1, 10, DOOR, marked(DOOR)))
        used = web.references_of_a_click(created=CREATED[FIRST])
        engine = open_database(Settings(state_dir=tmp_path).database)
        web.references.rules.add(7, OwnerRule(Action.DISABLE, "Wheel"))
        SplitStore(engine).settle(7, lambda _: {"0" * 64: Split.HOLDOUT})
        run, _ = TrainingRuns(engine).request(7, RequestedBy.COMMAND)

        # Installed anew at the same address, and a stranger who names any address.
        for hostname in (studios.first.url, studios.second.url, "http://127.0.0.1:9"):
            body = setup_body(studios.second, created=CREATED[SECOND]) | {"hostname": hostname}
            web.client.post("/setup", json=body).raise_for_status()
        assert web.references_of_a_click(created=CREATED[FIRST]) == used
        assert len(web.references.rules.of_project(7)) == 2
        assert SplitStore(engine).known(7) == {"0" * 64: Split.HOLDOUT}
        assert TrainingRuns(engine).under_way(7) == run
        assert Projects(engine).connection(7).access_token == TOKENS[FIRST]
        assert SplitStore(engine).known(SECOND) == {}
        assert web.references.overview(SECOND, 4) == []
        assert TrainingRuns(engine).under_way(SECOND) is None
        engine.dispose()


def test_a_request_that_may_mean_either_is_refused_and_both_are_compared(tmp_path, redis, studios, caplog):
    studios.first.created_at = studios.second.created_at = None
    with web_process(tmp_path, redis) as web:
        studios.setup(web)
        assert click_reason(web, None) == "project_unclear"
        assert click_reason(web, "1795349999") == "not_connected"
        assert click_reason(web, CREATED[FIRST]) == "timeout", "a worker is asked"
        web.client.post("/webhook", json=studios.second.annotate(1, 10, DOOR, marked(DOOR)))
        wait_until(lambda: len(web.references.newest(SECOND, "Door", 4)) == 1)
        assert web.references.newest(FIRST, "Door", 4) == []
    assert "project_unclear" in {getattr(record, "reason", None) for record in caplog.records}


@pytest.mark.usefixtures("databases_closed")
def test_a_project_that_was_replaced_in_its_label_studio_is_not_compared_with_the_new_one(
    tmp_path, redis, studios
):
    with web_process(tmp_path, redis) as web:
        web.client.post("/setup", json=setup_body(studios.first, created=CREATED[FIRST]))
        web.client.post("/webhook", json=studios.first.annotate(1, 10, DOOR, marked(DOOR)))
        assert len(web.references.newest(FIRST, "Door", 4)) == 1
    studios.first.delete_annotation(1)
    studios.first.annotate(2, 20, DOOR, marked(DOOR))
    studios.first.created_at = studios.second.created_at
    settings = Settings(state_dir=tmp_path)
    wiring = wire_backend(settings, redis)
    assert wiring.reconcile is not None
    with pytest.raises(AnotherProjectError, match="another project 7"):
        wiring.reconcile._reconciler.compare(FIRST)
    engine = open_database(settings.database)
    assert Projects(engine).known() == [FIRST]
    engine.dispose()


def test_start_training_trains_the_project_whose_button_was_pressed(tmp_path: Path, redis, studios):
    event = backend_request("api_train", "/webhook")
    with web_process(tmp_path, redis) as web:
        studios.setup(web)
        event["project"] |= {"id": 7, "created_at": studios.second.created_at}
        assert web.client.post("/webhook", json=event).json()["status"] == "accepted"
        engine = open_database(Settings(state_dir=tmp_path).database)
        assert TrainingRuns(engine).projects() == {SECOND}
        assert list(web.client.get("/status").json()["training"]["projects"]) == ["7#2"]
        engine.dispose()
