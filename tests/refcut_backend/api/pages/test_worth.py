"""What references are worth, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from refcut_backend.worth.figures import ReferenceFigures, TaskFigures
from tests.support.fake_wiring import MODEL_VERSION, FakeMeasureQueue
from tests.support.pages_world import PagesWorld, pages_world
from tests.support.worker_farm import wait_for

PAGE = "/projects/7/references"


@pytest.fixture
def world(tmp_path) -> Iterator[PagesWorld]:
    with pages_world(tmp_path) as opened:
        yield opened


@pytest.fixture
def here(world: PagesWorld) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=world.url, trust_env=False, timeout=60) as client:
        yield client


def test_a_measurement_is_started_and_its_end_is_read(here: httpx.Client, world: PagesWorld) -> None:
    assert here.get(f"{PAGE}/worth").json() == {"run": None}
    started = here.post(f"{PAGE}/worth", json={"label": "Wheel"}).json()
    assert (started["label"], started["outcome"]) == ("Wheel", None)
    wait_for(lambda: here.get(f"{PAGE}/worth").json()["outcome"], "it has ended")
    ended = here.get(f"{PAGE}/worth").json()
    assert (ended["run"], ended["outcome"], ended["step"], ended["steps"]) == (started["run"], "done", 2, 2)
    assert here.post(f"{PAGE}/worth/stop", json={}).json() == {"stopped": False}


def test_a_request_that_cannot_be_served_says_why(here: httpx.Client, world: PagesWorld) -> None:
    refused = here.post(f"{PAGE}/worth", json={"label": "Door"})
    assert (refused.status_code, refused.json()["error"]) == (422, "no_reference")
    queue = world.wiring.reference_worths._queue
    assert isinstance(queue, FakeMeasureQueue)
    queue.workers_ready = 0
    assert here.post(f"{PAGE}/worth", json={}).json()["message"] == "no worker is ready"
    assert here.post("/projects/99/references/worth", json={}).is_error


def test_a_form_of_another_site_starts_and_stops_nothing(here: httpx.Client, world: PagesWorld) -> None:
    for path in (f"{PAGE}/worth", f"{PAGE}/worth/stop"):
        assert here.post(path, content=b"{}").status_code == 415
    assert world.wiring.reference_worths.store.latest(7) is None


def test_figures_of_another_version_of_the_model_say_so(here: httpx.Client, world: PagesWorld) -> None:
    version = world.wiring.references.of_label(7, "Hood")[0].version
    tasks = tuple(TaskFigures(number, 0.7, 0.5) for number in range(6))

    def measured_with(model: str) -> str:
        figures = ReferenceFigures("Hood", version, model, 1.0, tasks)
        world.wiring.reference_worths.store.save(7, [figures], {("Hood", version)})
        return here.get(PAGE).text

    assert "Measured with the model <code>older</code>; another one serves now." in measured_with("older")
    text = measured_with(MODEL_VERSION)
    assert "First click with it .70, without .50, on 6 tasks" in text
    assert "another one serves now" not in text
