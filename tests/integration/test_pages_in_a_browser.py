"""Status, clicks, trainings and login in Chromium, on a fake model: what people see and do, and what never happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect
from redis import Redis

from refcut_backend.api.app import create_app
from refcut_backend.api.auth import Access
from refcut_backend.errors import ImageError
from refcut_backend.queue.queue_state import read_queue_state
from refcut_backend.queue.recent_clicks import RecentClicks
from refcut_backend.settings import Settings
from refcut_backend.wiring import Wiring
from tests.end_to_end.pictures import picture
from tests.support.browser import Watched, chromium, flaws, watched_page
from tests.support.fake_wiring import MODEL_VERSION, FakeQueue, click_body, wiring_on
from tests.support.http_server import serving
from tests.support.recorded import LABEL_CONFIG, click_result
from tests.support.seeded_trainings import (
    PROJECT,
    a_failed_run,
    a_running_run,
    accepted_clicks,
    connect,
    new_annotations,
    two_versions,
)
from tests.support.trained_folders import PARENT

HOSTILE = "<img src=x onerror=alert(1)>"
USER, PASSWORD = "team", "sesame-canary"
WITHIN_S = 2.0


@dataclass
class Backend:
    """A running web server on a fake queue."""

    url: str
    wiring: Wiring
    queue: FakeQueue
    click: object


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def wired(tmp_path, connection: Redis) -> Iterator[tuple[Wiring, FakeQueue]]:
    queue = FakeQueue()
    with wiring_on(tmp_path, queue, recent_clicks=RecentClicks(connection)) as wiring:
        connect(wiring.projects)
        yield replace(wiring, queue_state=lambda: read_queue_state(connection)), queue


@pytest.fixture
def backend(wired) -> Iterator[Backend]:
    wiring, queue = wired
    with serving(create_app(wiring, 10_000_000)) as client:

        def click(label: str, task: int = 3) -> None:
            config = (
                LABEL_CONFIG.replace("Door", HOSTILE.replace("<", "&lt;"))
                if label == HOSTILE
                else LABEL_CONFIG
            )
            body = click_body(click_result("a", 1, 1, label), task=task, label_config=config)
            client.post("/predict", json=body).raise_for_status()

        yield Backend(str(client.base_url).rstrip("/"), wiring, queue, click)


@pytest.fixture
def watched(browser: Browser, backend: Backend) -> Iterator[Watched]:
    """A page on which nothing bad may happen, whatever the test does."""
    with watched_page(browser, backend.url) as watched:
        yield watched
        assert watched.hosts == {"127.0.0.1"}
        assert watched.problems == []


def place_of_the_last_failure(page: Page, path: str) -> Locator:
    """Opens a page that shows failed clicks as they come."""
    page.goto(path)
    expect(page.locator("#live")).to_have_text("Live")
    return page.locator("#failed li" if path == "/status" else "#last").first


@pytest.mark.parametrize("path", ["/status", "/status/clicks"])
def test_a_failed_click_appears_within_two_seconds_with_its_remedy(
    watched: Watched, backend: Backend, path: str
) -> None:
    shown = place_of_the_last_failure(watched.page, path)
    taken_s = []
    for number in range(3):
        backend.queue.fails_with = ImageError(f"404 from storage {number}", hint="restore the file")
        backend.click("Door")
        answered_at = time.monotonic()
        expect(shown).to_contain_text(f"404 from storage {number}; restore the file")
        taken_s.append(time.monotonic() - answered_at)
    # The median: on a busy machine the browser itself may stand still for a moment.
    assert median(taken_s) < WITHIN_S
    expect(shown).to_contain_text("What helps")
    expect(shown).to_contain_text("Door")


def test_an_annotator_sees_the_mask_of_the_last_click_and_chooses_a_project(
    watched: Watched, backend: Backend
) -> None:
    page = watched.page
    page.goto("/status/clicks")
    expect(page.locator("#live")).to_have_text("Live")
    backend.click("Door", task=41)
    expect(page.locator("#last")).to_contain_text("task 41")
    expect(page.locator("#mask")).to_be_visible()
    backend.click("Door", task=42)
    expect(page.locator("#last")).to_contain_text("task 42")
    expect(page.locator("#before li")).to_have_count(1)
    page.locator("#project").select_option("6")
    expect(page.locator("#last")).to_contain_text("Click in Label Studio")
    page.reload()
    expect(page.locator("#project")).to_have_value("6")


@pytest.mark.parametrize("path", ["/status", "/status/clicks"])
def test_what_helps_is_said_once_and_without_the_marks_of_the_docs(
    watched: Watched, backend: Backend, path: str
) -> None:
    shown = place_of_the_last_failure(watched.page, path)
    backend.click("Larger")
    expect(shown).to_contain_text("A dot of the label Negative, Smaller or Larger belongs to no object")
    expect(shown).to_contain_text("What helps: click an object of another label first")
    expect(shown.get_by_text("click an object of another label first")).to_have_count(1)


def test_before_the_first_click_and_after_a_failed_one_there_is_no_empty_frame(
    watched: Watched, backend: Backend
) -> None:
    page = watched.page
    page.goto("/status/clicks")
    expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("#mask")).to_be_hidden()
    expect(page.locator("#earlier")).to_be_hidden()
    backend.click("Door", task=41)
    expect(page.locator("#mask")).to_be_visible()
    backend.queue.fails_with = ImageError("404 from storage", hint="restore the file")
    backend.click("Door")
    expect(page.locator("#last")).to_contain_text("404 from storage")
    expect(page.locator("#mask")).to_be_hidden()
    expect(page.locator("#earlier")).to_be_visible()


def test_hostile_labels_are_text_everywhere(watched: Watched, backend: Backend, tmp_path: Path) -> None:
    page = watched.page
    first, _ = two_versions(backend.wiring.model_store, tmp_path)
    accepted_clicks(backend.wiring.previews._engine, first, HOSTILE, masks=2, clicks=1)
    backend.click(HOSTILE)
    backend.queue.fails_with = ImageError(HOSTILE)
    backend.click(HOSTILE)
    page.goto("/status")
    expect(page.locator("#failed li")).to_contain_text(HOSTILE)
    expect(page.locator("#latest tbody tr").nth(1)).to_contain_text(HOSTILE)
    page.goto("/status/clicks")
    expect(page.locator("#last")).to_contain_text(HOSTILE)
    page.goto(f"/projects/{PROJECT}/training")
    expect(page.locator("#since")).to_contain_text(HOSTILE)


def test_a_rollback_by_keyboard_asks_first_and_then_serves_what_served_before(
    watched: Watched, backend: Backend, tmp_path: Path
) -> None:
    page, store = watched.page, backend.wiring.model_store
    first, second = two_versions(store, tmp_path)
    page.goto(f"/projects/{PROJECT}/training")
    expect(page.locator("#serving")).to_contain_text(f"{first} serves")
    expect(page.locator(f"[data-version='{second}']")).to_contain_text("Not promoted: Wheel is worse")
    page.locator("#rollback").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#sure")).to_contain_text(MODEL_VERSION)
    page.keyboard.press("Escape")
    assert store.current(PROJECT) == first
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_have_text(f"{MODEL_VERSION} serves from now on.")
    assert store.current(PROJECT) is None


def test_a_version_that_was_not_approved_serves_only_after_a_warning(
    watched: Watched, backend: Backend, tmp_path: Path
) -> None:
    page, store = watched.page, backend.wiring.model_store
    _, second = two_versions(store, tmp_path)
    page.goto(f"/projects/{PROJECT}/training")
    page.locator(f"[data-version='{second}'] button").click()
    expect(page.locator("#sure")).to_contain_text("did not approve")
    page.locator("#yes").click()
    expect(page.locator("#message")).to_have_text(f"{second} serves from now on.")
    assert store.current(PROJECT) == second


def test_a_training_is_asked_for_and_followed_with_its_curve(watched: Watched, backend: Backend) -> None:
    page, wiring = watched.page, backend.wiring
    new_annotations(wiring.previews._engine, 12)
    page.goto(f"/projects/{PROJECT}/training")
    expect(page.locator("#waiting")).to_contain_text("12 of 20 new or changed annotations")
    page.locator("#start").click()
    expect(page.locator("#message")).to_have_text("The training was requested.")
    expect(page.locator("#running")).to_contain_text("Waits for a training worker")
    expect(page.locator("#running")).to_contain_text("No training worker runs")
    a_running_run(wiring.training.runs)
    expect(page.locator("#running")).to_contain_text("step 200 of 400, about 14 min left")
    expect(page.locator("#curve svg")).to_be_visible()


@pytest.fixture
def with_password(browser: Browser, wired) -> Iterator[Watched]:
    """A page of a backend with a password, before the login."""
    wiring, _ = wired
    access = Access.of(Settings(basic_auth_user=USER, basic_auth_password=PASSWORD))
    with (
        serving(create_app(wiring, 10_000_000, access)) as client,
        watched_page(browser, str(client.base_url)) as opened,
    ):
        yield opened


def test_with_a_password_the_form_leads_to_the_page_and_logging_out_leaves_it(
    with_password: Watched,
) -> None:
    page = with_password.page
    page.goto("/status")
    expect(page.locator("#login")).to_be_visible()
    page.keyboard.type(USER)
    page.keyboard.press("Tab")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_have_text("User name or password is wrong")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_have_text("Live")
    assert page.url.endswith("/status")
    assert "refcut_session" not in page.evaluate("document.cookie")
    page.locator("#logout").click()
    expect(page.locator("#login")).to_be_visible()
    assert with_password.hosts == {"127.0.0.1"}
    assert with_password.problems == []


def test_the_page_of_trainings_shows_what_waits_and_runs_all_versions_and_how_they_do_since(
    watched: Watched, backend: Backend, tmp_path: Path
) -> None:
    page, wiring, engine = watched.page, backend.wiring, backend.wiring.previews._engine
    new_annotations(engine, 12)
    first, _ = two_versions(wiring.model_store, tmp_path)
    for version, clicks in ((MODEL_VERSION, 4), (first, 3)):
        accepted_clicks(engine, version, "Door", masks=30 - 2 * clicks, clicks=clicks)
        accepted_clicks(engine, version, "Wheel", masks=12, clicks=clicks - 1)
    a_failed_run(wiring.training.runs)
    a_running_run(wiring.training.runs)
    page.route("**/training/*", _with_plain_names)
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto(f"/projects/{PROJECT}/training")
    expect(page.locator("#waiting")).to_contain_text("12 of 20 new or changed annotations")
    expect(page.locator("#curve svg")).to_be_visible()
    expect(page.locator("main")).to_contain_text("Promoted: first click 0.710 to 0.790")
    expect(page.locator("main")).to_contain_text("Not promoted: Wheel is worse")
    expect(page.locator("main")).to_contain_text("3.0 clicks")
    expect(page.locator("main")).to_contain_text("the disk is full")
    picture(page, "training", whole_page=True)


def _with_plain_names(route: Route) -> None:
    """Names of versions as real ones look, for the picture."""
    answer = route.fetch()
    names = {PARENT: "s14-9bec7961", MODEL_VERSION: "s14-9bec7961", "tiny-": "s14-"}
    text = answer.text()
    for name, plain in names.items():
        text = text.replace(name, plain)
    route.fulfill(response=answer, body=text)


def test_pages_with_clicks_and_trainings_fit_their_window_and_axe_finds_nothing_serious(
    watched: Watched, backend: Backend, tmp_path: Path
) -> None:
    page, wiring = watched.page, backend.wiring
    first, _ = two_versions(wiring.model_store, tmp_path)
    accepted_clicks(wiring.previews._engine, first, "Door", masks=2, clicks=1)
    a_running_run(wiring.training.runs)
    backend.click("Door")
    backend.queue.fails_with = ImageError("404 from storage", hint="restore the file")
    backend.click("Door")
    found = []
    for path, last in (
        ("/status", "#latest tbody tr >> nth=1"),
        ("/status/clicks", "#last dl"),
        (f"/projects/{PROJECT}/training", "#curve svg"),
        ("/docs", "summary >> nth=0"),
    ):
        page.goto(path)
        expect(page.locator(last)).to_be_visible()
        for closed in page.locator("summary").all():
            closed.click()
        found += flaws(page)
    page.goto(f"/projects/{PROJECT}/training")
    page.locator("#rollback").click()
    expect(page.locator("#sure")).to_be_visible()
    assert found + flaws(page) == []


def test_the_login_form_and_its_refusal_fit_their_window_and_axe_finds_nothing_serious(
    with_password: Watched,
) -> None:
    page = with_password.page
    page.goto("/login")
    page.locator("[name=user]").fill(USER)
    page.locator("[name=password]").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_have_text("User name or password is wrong")
    assert flaws(page) == []
