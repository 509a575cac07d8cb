"""The page of a project's trainings over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from refcut_backend.api.app import create_app
from refcut_backend.training.runs import RequestedBy
from refcut_backend.wiring import Wiring
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.fake_wiring import MODEL_VERSION
from tests.support.seeded_trainings import (
    PROJECT,
    a_failed_run,
    a_running_run,
    accepted_clicks,
    connect,
    new_annotations,
    two_versions,
)

PATH = f"/projects/{PROJECT}/training"


@pytest.fixture
def here(wiring) -> Iterator[TestClient]:
    """A browser on the machine of the backend."""
    with TestClient(create_app(wiring, LIMIT_BYTES), client=("127.0.0.1", 50000)) as client:
        yield client


def test_the_page_is_there_and_an_unknown_project_is_explained(here: TestClient) -> None:
    assert 'aria-current="page">Training' in here.get(PATH).text
    unknown = here.get("/projects/99/training")
    assert unknown.status_code == 404
    assert "Settings" in unknown.text
    assert here.get("/projects/99/training/progress").json()["error"]


def test_it_says_what_waits_and_what_runs_with_its_curve(here: TestClient, wiring: Wiring, engine) -> None:
    new_annotations(wiring.previews._engine, 12)
    found = here.get(f"{PATH}/progress").json()
    assert (found["new"], found["wanted"], found["annotations"], found["running"]) == (12, 20, 12, None)
    a_running_run(wiring.training.runs)
    running = here.get(f"{PATH}/progress").json()["running"]
    assert (running["stage"], running["step"], running["steps"], running["eta_s"]) == (
        "training",
        200,
        400,
        840.0,
    )
    assert len(running["curve"]) == 21
    assert not running["is_silent"]


def test_a_worker_that_is_silent_is_no_reason_to_promise_an_end(here: TestClient, wiring: Wiring) -> None:
    a_running_run(wiring.training.runs)
    wiring.training_reports._now = lambda: 4e9
    assert here.get(f"{PATH}/progress").json()["running"]["is_silent"]


def test_after_failed_trainings_it_says_when_the_next_one_may_start(here: TestClient, wiring: Wiring) -> None:
    run = wiring.training.runs.of(a_failed_run(wiring.training.runs))
    assert run is not None
    found = here.get(f"{PATH}/progress").json()
    assert found["earliest_at"] == pytest.approx(run.requested_at + 1200)
    (failed,) = here.get(f"{PATH}/history").json()["without_version"]
    assert "disk is full" in failed["reason"]


def test_the_history_has_each_version_with_figures_decision_and_what_it_cost_since(
    here: TestClient, wiring: Wiring, tmp_path
) -> None:
    first, second = two_versions(wiring.model_store, tmp_path)
    accepted_clicks(wiring.previews._engine, first, "Door", masks=4, clicks=3)
    found = here.get(f"{PATH}/history").json()
    assert (found["serving"], found["rollback_to"]) == (first, MODEL_VERSION)
    newest, older = found["versions"]
    assert (newest["version"], newest["approved"], newest["serves"]) == (second, False, False)
    assert newest["reasons"].startswith("Wheel is worse")
    assert (older["version"], older["serves"]) == (first, True)
    door, wheel = newest["compared"]["labels"]
    assert (wheel["label"], wheel["before"]["noc85"], wheel["after"]["noc85"]) == ("Wheel", 3.1, 4.4)
    assert (door["label"], door["after"]["first_click_iou"]) == ("Door", 0.82)
    (cost,) = found["clicks_per_mask"]
    assert (cost["label"], cost["model_version"], cost["masks"], cost["clicks_per_mask"]) == (
        "Door",
        first,
        4,
        3.0,
    )
    (picture,) = newest["pictures"]
    assert here.get(f"{PATH}/pictures/{second}/{picture}").content == b"a picture"
    assert here.get(f"/projects/6/training/pictures/{second}/{picture}").status_code == 404
    assert here.get(f"{PATH}/pictures/{second}/manifest.json").status_code == 404


def test_a_version_is_promoted_and_rolled_back_as_by_command(
    here: TestClient, wiring: Wiring, tmp_path
) -> None:
    first, second = two_versions(wiring.model_store, tmp_path)
    promoted = here.post(f"{PATH}/serve", json={"serving": first, "version": second})
    assert promoted.json() == {"serving": second}
    assert wiring.model_store.current(PROJECT) == second
    for expected in (first, MODEL_VERSION):
        serving = wiring.model_store.current(PROJECT)
        assert here.post(f"{PATH}/serve", json={"serving": serving}).json() == {"serving": expected}
    nothing = here.post(f"{PATH}/serve", json={"serving": MODEL_VERSION})
    assert nothing.status_code == 422
    assert "nothing served" in nothing.json()["message"]


def test_a_second_click_on_roll_back_does_not_go_back_twice(
    here: TestClient, wiring: Wiring, tmp_path
) -> None:
    first, second = two_versions(wiring.model_store, tmp_path)
    wiring.model_store.promote(PROJECT, second)
    body = {"serving": second}
    assert [here.post(f"{PATH}/serve", json=body).status_code for _ in range(2)] == [200, 422]
    assert wiring.model_store.current(PROJECT) == first


def test_a_version_of_another_project_is_refused(here: TestClient, wiring: Wiring, tmp_path) -> None:
    first, _ = two_versions(wiring.model_store, tmp_path)
    answer = here.post("/projects/6/training/serve", json={"serving": MODEL_VERSION, "version": first})
    assert answer.status_code == 422
    assert wiring.model_store.current(6) is None


def test_train_now_gives_one_run_however_often_it_is_pressed(here: TestClient, wiring: Wiring) -> None:
    connect(wiring.projects)
    answers = [here.post(f"{PATH}/start", json={}).json() for _ in range(2)]
    assert [answer["is_new"] for answer in answers] == [True, False]
    run = wiring.training.runs.of(answers[0]["run"])
    assert run is not None
    assert run.requested_by == RequestedBy.PAGE
