"""The page with the references of a project, over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from refcut_backend.api.app import create_app
from refcut_backend.api.auth import Access
from refcut_backend.api.pages.references import DRAWING_THREADS
from refcut_backend.clicks.log import ClickLog
from refcut_backend.clicks.session import ClickedObject
from refcut_backend.images.address import TaskImage
from refcut_backend.label_studio.payloads import Webhook
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.pages_world import OTHER_CAR, PagesWorld, pages_world
from tests.support.recorded import LABEL_CONFIG

PAGE = "/projects/7/references"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[PagesWorld]:
    """A server with references that no test changes for good."""
    with pages_world(tmp_path_factory.mktemp("pages")) as opened:
        yield opened


@pytest.fixture
def here(world: PagesWorld) -> Iterator[httpx.Client]:
    """A browser on the machine of the backend."""
    with httpx.Client(base_url=world.url, trust_env=False, timeout=60) as client:
        yield client


def reference_id(world: PagesWorld, label: str, task_id: int) -> int:
    return next(c.id for c in world.wiring.references.of_label(7, label) if c.task_id == task_id)


def state(world: PagesWorld, label: str, task_id: int) -> str:
    rows = world.wiring.reference_manager.rows(7, label)
    return next(row.state.value for row in rows if row.candidate.task_id == task_id)


def test_every_reference_is_shown_with_what_a_lead_needs_to_judge_it(
    here: httpx.Client, world: PagesWorld
) -> None:
    page = here.get(PAGE)
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    text = page.text
    for version in {c.version for c in world.wiring.references.of_label(7, "Wheel")}:
        assert f"<code>{version}</code>" in text
    assert f'href="{world.cars.url}/projects/7/data?task=12"' in text
    assert "annotation 40" in text
    assert 'data-author="1">user 1<' in text
    assert "fine if the label means all of them" in text
    without = text.partition("Labels without a reference")[2]
    assert "<b>Door</b>" in without
    assert "<b>Wheel</b>" not in without


def test_labels_are_text_wherever_they_stand(here: httpx.Client) -> None:
    text = here.get(PAGE).text
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&#34;&amp;&#39;&lt;/script&gt;" in text


def test_how_often_a_reference_was_used_is_counted_from_the_click_log(
    here: httpx.Client, world: PagesWorld
) -> None:
    version = world.wiring.references.of_label(7, "Hood")[0].version
    for project_id, versions in ((7, [version, "other"]), (7, [version]), (7, []), (3, [version])):
        ClickLog(world.wiring.references._engine).add(
            project_id,
            1,
            ClickedObject("Hood", "image", "r"),
            model_version="m",
            reference_versions=versions,
            milliseconds=1.0,
        )
    assert world.wiring.reference_uses(7) == {version: 2, "other": 1}
    assert "2 clicks in 30 days" in here.get(PAGE).text


def test_a_thumbnail_is_small_and_belongs_to_the_project_in_its_address(
    here: httpx.Client, world: PagesWorld
) -> None:
    number = reference_id(world, "Wheel", 12)
    picture = here.get(f"{PAGE}/{number}/picture")
    assert picture.headers["content-type"] == "image/jpeg"
    assert len(picture.content) < 100_000
    assert here.get(f"{PAGE}/{2**63}/picture").status_code == 400
    other = here.get(f"/projects/3/references/{number}/picture")
    assert other.status_code == 422
    assert other.json()["error"] == "no_reference"


@pytest.mark.parametrize(
    ("action", "opposite", "expected"),
    [("pin", "unpin", "pinned"), ("disable", "enable", "disabled")],
)
def test_an_action_of_the_page_is_the_command_of_its_name(
    here: httpx.Client, world: PagesWorld, action: str, opposite: str, expected: str
) -> None:
    body = {"label": "Wheel", "task": 12, "annotation": 40}
    assert here.post(f"{PAGE}/change", json=body | {"action": action}).status_code == 200
    assert state(world, "Wheel", 12) == expected
    assert here.post(f"{PAGE}/change", json=body | {"action": opposite}).status_code == 200
    assert state(world, "Wheel", 12) == "in use"


def test_the_page_moves_references_as_the_command_does(here: httpx.Client, world: PagesWorld) -> None:
    body = {"action": "move", "label": "Wheel", "task": 12, "annotation": 40}

    def order() -> list[int]:
        return [row.candidate.task_id for row in world.wiring.reference_manager.rows(7, "Wheel")]

    assert order() == [13, 12]
    assert here.post(f"{PAGE}/change", json=body | {"place": 1}).status_code == 200
    assert order() == [12, 13]
    assert "Newest first" in here.get(PAGE).text
    refused = here.post(f"{PAGE}/change", json=body)
    assert refused.status_code == 422
    assert refused.json()["message"] == "a reference is moved to a place"
    for place in (0, -1, 2**40, "1st"):
        assert here.post(f"{PAGE}/change", json=body | {"place": place}).status_code in (400, 422)
    assert order() == [12, 13]
    withdrawn = here.post(f"{PAGE}/change", json={"action": "newest_first", "label": "Wheel"})
    assert withdrawn.status_code == 200
    assert order() == [13, 12]
    assert "Newest first" not in here.get(PAGE).text


def test_a_tasks_regions_become_a_reference_without_being_marked(
    here: httpx.Client, world: PagesWorld
) -> None:
    body = {"label": "Door", "task": 12}
    refused = here.post(f"{PAGE}/change", json=body | {"action": "add"})
    assert refused.status_code == 422
    assert refused.json()["message"] == "there is no region of 'Door', task 12"
    assert here.post(f"{PAGE}/change", json={"label": "Door", "action": "add"}).status_code == 422
    assert world.wiring.references.rules.of_label(7, "Door") == []


def test_a_form_of_another_site_changes_nothing(here: httpx.Client, world: PagesWorld) -> None:
    forged = here.post(f"{PAGE}/change", content=b'{"action": "disable", "label": "Hood"}')
    assert forged.status_code == 415
    assert world.wiring.references.rules.of_label(7, "Hood") == []


@pytest.mark.parametrize("name", ["99", "x", "7%239", "%3Cscript%3E"])
def test_an_unknown_project_is_a_page_that_says_so(here: httpx.Client, name: str) -> None:
    page = here.get(f"/projects/{name}/references")
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "<script>" not in page.text
    assert here.post(f"/projects/{name}/references/change", json={"label": "Door", "action": "pin"}).is_error


def test_pages_and_pictures_need_the_same_right(world: PagesWorld) -> None:
    app = create_app(world.wiring, LIMIT_BYTES, Access(basic=frozenset({b"team:secret"})))
    number = reference_id(world, "Wheel", 12)
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 5))
    paths = ("/projects", PAGE, f"{PAGE}/{number}/picture")

    async def statuses() -> list[int]:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [(await client.get(path)).status_code for path in paths]

    assert anyio.run(statuses) == [401, 401, 401]


def test_many_references_of_a_label_are_shown_in_parts(tmp_path: Path) -> None:
    with pages_world(tmp_path) as world, httpx.Client(base_url=world.url, trust_env=False) as here:
        for number in range(20):
            world.annotate(world.cars, 100 + number, 100 + number, "car_parts_te66.jpg", "Hood")
        text = here.get(PAGE).text
        assert text.count('alt="Reference of Hood ') == 8
        assert "13 more of this label" in text
        all_of_it = here.get(PAGE, params={"label": "Hood"}).text
        assert all_of_it.count('alt="Reference of Hood ') == 21
        assert "Reference of Wheel" not in all_of_it


def test_the_number_in_use_counts_also_references_that_the_page_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFCUT_MAX_REFERENCES_PER_LABEL", "12")
    with pages_world(tmp_path) as world, httpx.Client(base_url=world.url, trust_env=False) as here:
        for number in range(20):
            world.annotate(world.cars, 100 + number, 100 + number, "car_parts_te66.jpg", "Hood")
        assert "12 in use of 21" in here.get(PAGE).text


def test_a_lost_label_is_said_to_be_lost(tmp_path: Path) -> None:
    with pages_world(tmp_path) as world, httpx.Client(base_url=world.url, trust_env=False) as here:
        project = {"id": 7, "label_config": LABEL_CONFIG, "updated_at": "2026-02-01T00:00:00Z"}
        world.wiring.follower.apply(Webhook.model_validate({"action": "PROJECT_UPDATED", "project": project}))
        assert "not in the label config" in here.get(PAGE).text


def test_a_trial_leaves_out_a_reference_whose_photograph_is_gone(tmp_path: Path) -> None:
    with (
        pages_world(tmp_path) as world,
        httpx.Client(base_url=world.url, trust_env=False, timeout=60) as here,
    ):
        del world.cars.images[OTHER_CAR]
        trial = here.post(f"{PAGE}/trial", json={"label": "Wheel", "task": 12}).json()
        assert [one["name"] for one in trial["references"]] == ["task 12"]
        photograph = here.post("/playground/photograph", json={"image": trial["image"]})
        assert photograph.headers["content-type"] == "image/jpeg"
        refused = here.post(f"{PAGE}/trial", json={"label": "Wheel", "task": 13})
        assert refused.status_code == 422
        assert refused.json()["hint"]


def test_few_photographs_are_decoded_at_once_however_many_pictures_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most = 0, 0
    counting = threading.Lock()
    with (
        pages_world(tmp_path) as world,
        httpx.Client(base_url=world.url, trust_env=False, timeout=60) as here,
    ):
        pictures = world.wiring.reference_pictures
        original = pictures._read_image

        def read(where: TaskImage) -> Any:
            nonlocal at_once, most
            with counting:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.1)
            found = original(where)
            with counting:
                at_once -= 1
            return found

        monkeypatch.setattr(pictures, "_read_image", read)
        ids = [one.candidate.id for one in world.wiring.references.overview(7, 4)]
        paths = [f"{PAGE}/{number}/picture?large={large}" for number in ids for large in (True, False)]
        with ThreadPoolExecutor(len(paths)) as callers:
            answers = list(callers.map(here.get, paths))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert most == DRAWING_THREADS
