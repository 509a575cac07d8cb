"""The pages of projects and references in a real browser, on fakes: no network, no model, no Label Studio."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from refcut_backend.references.selection import ReferenceSelector
from refcut_backend.worth.store import Outcome
from tests.support.browser import Watched, chromium, flaws, watched_page
from tests.support.fake_wiring import FakeMeasureQueue
from tests.support.pages_world import CAR, HOSTILE_LABEL, PagesWorld, pages_world, part_mask
from tests.support.recorded import brush_result


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def world(tmp_path: Path) -> Iterator[PagesWorld]:
    with pages_world(tmp_path) as opened:
        yield opened


@pytest.fixture
def watched(browser: Browser, world: PagesWorld) -> Iterator[Watched]:
    """A page that fails its test if it asks another machine, runs hostile markup or breaks its own policy."""
    with watched_page(browser, world.url, accept_downloads=True) as found:
        yield found
        assert found.hosts == {"127.0.0.1"}
        assert found.problems == []


def references(world: PagesWorld, project: int = 7) -> str:
    return f"{world.url}/projects/{project}/references"


def pictures_are_shown(page: Page) -> None:
    for picture in page.locator(".reference-card img").all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("(image) => image.naturalWidth") > 0


def test_from_all_projects_to_the_references_of_one(world: PagesWorld, watched: Watched) -> None:
    page = watched.page
    page.goto(f"{world.url}/projects")
    expect(page.locator(f'a[href="{world.cars.url}/projects/7/"]')).to_be_visible()
    page.get_by_role("link", name="Project 7").click()
    expect(page.get_by_role("heading", name="Wheel")).to_be_visible()
    expect(page.get_by_role("heading", name=HOSTILE_LABEL)).to_be_visible()
    assert page.locator(".reference-card").count() == 4
    expect(page.locator("[data-author]").first).to_have_text("lead@example.com")
    pictures_are_shown(page)


def test_pin_and_disable_by_keyboard_without_losing_the_place(world: PagesWorld, watched: Watched) -> None:
    page = watched.page
    page.goto(references(world))
    (number,) = {c.id for c in world.wiring.references.of_label(7, "Wheel") if c.task_id == 12}
    page.locator(f"#pin-{number}").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_have_text("Pinned: of this label, only pinned references are used.")
    expect(page.locator(f"#unpin-{number}")).to_be_focused()
    expect(page.get_by_text("Not used: others are pinned")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator(f"#pin-{number}")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator(f"#enable-{number}")).to_be_focused()
    assert [r.action.value for r in world.wiring.references.rules.of_label(7, "Wheel")] == ["disable"]


def wheels(world: PagesWorld) -> list[int]:
    """Tasks of the references that a click of Wheel uses, in their order."""
    of_task = {c.id: c.task_id for c in world.wiring.references.of_label(7, "Wheel")}
    return [of_task[found.id] for found in world.wiring.references.newest(7, "Wheel", 4)]


def more_wheels(world: PagesWorld) -> None:
    """Tasks 14 to 17 give references of Wheel, too: more than clicks use."""
    for number in range(14, 18):
        world.annotate(world.cars, 30 + number, number, CAR, "Wheel")


def shown_wheels(page: Page) -> list[int]:
    return [
        int(card.get_attribute("data-task") or 0) for card in page.locator('li[data-label="Wheel"]').all()
    ]


def test_the_order_of_references_is_changed_by_keyboard_without_losing_the_place(
    world: PagesWorld, watched: Watched
) -> None:
    more_wheels(world)
    page = watched.page
    page.goto(references(world))
    assert shown_wheels(page) == [17, 16, 15, 14, 13, 12]
    assert wheels(world) == [17, 16, 15, 14]
    (number,) = {c.id for c in world.wiring.references.of_label(7, "Wheel") if c.task_id == 12}
    expect(page.locator(f"#later-{number}")).to_be_disabled()
    page.get_by_role("button", name="Earlier, now place 6 of 6").focus()
    for place in (5, 4, 3, 2, 1):
        page.keyboard.press("Enter")
        expect(page.locator("#message")).to_contain_text(f"Moved to place {place}.")
        expect(page.locator(f"#{'earlier' if place > 1 else 'later'}-{number}")).to_be_focused()
    assert shown_wheels(page) == [12, 17, 16, 15, 14, 13]
    assert wheels(world) == [12, 17, 16, 15]
    expect(page.locator('li[data-task="14"] .state')).to_have_text("Not used: enough others come first")
    page.get_by_role("button", name="Newest first").click()
    expect(page.locator("#message")).to_have_text("The newest references are used first again.")
    expect(page.get_by_role("button", name="Newest first")).to_have_count(0)
    assert wheels(world) == [17, 16, 15, 14]


def drag(page: Page, from_task: int, to_task: int) -> None:
    """Presses the handle of a card and carries it beyond the middle of another one."""
    handle = page.locator(f'li[data-label="Wheel"][data-task="{from_task}"] .handle')
    handle.scroll_into_view_if_needed()
    start = handle.bounding_box()
    end = page.locator(f'li[data-label="Wheel"][data-task="{to_task}"]').bounding_box()
    assert start is not None
    assert end is not None
    page.mouse.move(start["x"] + 5, start["y"] + 5)
    page.mouse.down()
    for share in (0.2, 0.5, 0.8):
        page.mouse.move(end["x"] + share * end["width"], end["y"] + share * end["height"], steps=3)


def test_a_reference_is_dragged_to_another_place_and_escape_puts_it_back(
    world: PagesWorld, watched: Watched
) -> None:
    more_wheels(world)
    page = watched.page
    page.goto(references(world))
    drag(page, 17, 16)
    page.keyboard.press("Escape")
    page.mouse.up()
    assert shown_wheels(page) == [17, 16, 15, 14, 13, 12]
    drag(page, 17, 15)
    page.mouse.up()
    expect(page.locator("#message")).to_contain_text("Moved to place 3.")
    assert shown_wheels(page) == [16, 15, 17, 14, 13, 12]
    assert wheels(world) == [16, 15, 17, 14]
    page.reload()
    assert shown_wheels(page) == [16, 15, 17, 14, 13, 12]


def test_a_refused_move_is_said_and_the_page_shows_the_order_as_it_is(
    world: PagesWorld, watched: Watched
) -> None:
    page = watched.page
    page.goto(references(world))
    world.wiring.reference_manager.disable(7, ReferenceSelector("Wheel", 13))
    drag(page, 13, 12)
    page.mouse.up()
    expect(page.locator("#message")).to_contain_text(
        "'Wheel', task 13, annotation 41 cannot be moved: disabled"
    )
    expect(page.get_by_text("Disabled", exact=True)).to_be_visible()
    expect(page.locator(".handle")).to_have_count(0)


def test_a_tasks_regions_become_a_reference_and_no_longer_are(world: PagesWorld, watched: Watched) -> None:
    page = watched.page
    door = brush_result("d", "Door", part_mask(CAR, "Front door"))
    world.cars.add_task(31, f"/data/upload/{CAR}")
    world.report(world.cars.annotate(60, 31, door))
    page.goto(references(world))
    form = page.locator('form[data-label="Door"]')
    form.get_by_label("Task").fill("31")
    form.get_by_role("button", name="Make its regions a reference").click()
    expect(page.locator("#message")).to_have_text("The task's regions are a reference now.")
    card = page.locator(".reference-card", has_text="In use, added by the owner")
    expect(card).to_have_count(1)
    card.get_by_role("button", name="Remove").click()
    expect(page.locator("#message")).to_have_text("Removed.")
    expect(card).to_have_count(0)
    assert world.wiring.references.rules.of_label(7, "Door") == []


def measurements(world: PagesWorld) -> FakeMeasureQueue:
    """The queue behind the page; tasks 31 to 36 show wheels, and none of them gives a reference."""
    for number in range(6):
        wheel = brush_result("w", "Wheel", part_mask(CAR, "Wheel"))
        world.report(world.cars.annotate(60 + number, 31 + number, wheel))
    found = world.wiring.reference_worths._queue
    assert isinstance(found, FakeMeasureQueue)
    return found


def test_what_references_are_worth_is_measured_with_a_progress_bar(
    world: PagesWorld, watched: Watched
) -> None:
    page, queue = watched.page, measurements(world)
    queue.gate = threading.Event()
    queue.problems[33] = "<img src=x onerror=alert(1)>"
    page.goto(references(world))
    page.get_by_role("button", name="Measure all references").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.locator("#worth-progress span")).to_have_text("0 of 10 masks")
    expect(page.locator("#measure")).to_be_disabled()
    expect(page.locator("#stop-measuring")).to_be_focused()
    queue.gate.set()
    expect(page.locator("#message")).to_have_text("Done: 2 of 4 references measured on 7 annotated masks.")
    expect(page.get_by_role("progressbar")).to_be_hidden()
    wheels = page.locator(".reference-card", has_text="First click with it .60, without .50, on 6 tasks")
    expect(wheels).to_have_count(2)
    expect(wheels.first).to_contain_text("better on 6, worse on 0.")
    why = "Not measured: no annotated task with another photograph shows the label."
    expect(page.get_by_text(why).first).to_be_visible()
    expect(page.locator("#worth-problems li")).to_have_text("task 33: <img src=x onerror=alert(1)>")


def test_a_measurement_is_stopped_and_one_that_runs_is_followed(world: PagesWorld, watched: Watched) -> None:
    page, queue = watched.page, measurements(world)
    queue.gate = threading.Event()
    world.wiring.reference_worths.start(7, "Wheel")
    page.goto(references(world))
    expect(page.locator("#worth-progress span")).to_have_text("0 of 8 masks of Wheel")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#message")).to_have_text("The measurement was stopped.")
    expect(page.get_by_text("First click with it")).to_have_count(0)
    queue.gate.set()
    page.locator(".label-card", has=page.get_by_role("heading", name="Wheel")).get_by_role(
        "button", name="Measure"
    ).click()
    expect(page.locator("#message")).to_have_text("Done: 2 references measured on 8 annotated masks.")
    expect(page.get_by_text("First click with it")).to_have_count(2)


def test_a_measurement_is_followed_while_the_backend_starts_again_and_its_failure_is_said_later(
    world: PagesWorld, watched: Watched
) -> None:
    page, queue = watched.page, measurements(world)
    queue.gate = threading.Event()
    page.goto(references(world))
    page.get_by_role("button", name="Measure all references").click()
    expect(page.locator("#worth-progress span")).to_have_text("0 of 10 masks")
    page.route("**/references/worth", lambda route: route.abort())
    expect(page.locator("#message")).to_contain_text("The backend does not answer")
    page.unroute("**/references/worth")
    expect(page.locator("#message")).to_have_text("")
    run = world.wiring.reference_worths.store.latest(7)
    assert run is not None
    world.wiring.reference_worths.store.end(run, Outcome.FAILED, "its process ended; start it again")
    expect(page.locator("#message")).to_have_text("Not measured: its process ended; start it again")
    queue.gate.set()
    page.reload()
    expect(page.locator("#worth-problems li")).to_have_text("Not measured: its process ended; start it again")


def test_a_set_is_downloaded_here_and_uploaded_to_another_project(
    world: PagesWorld, watched: Watched, tmp_path: Path
) -> None:
    page = watched.page
    page.goto(references(world))
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download the set").click()
    path = tmp_path / waiting.value.suggested_filename
    assert path.name == "references-7.zip"
    waiting.value.save_as(path)
    page.goto(references(world, 3))
    assert page.locator(".reference-card").count() == 0
    page.locator("#upload-set").set_input_files(str(path))
    expect(page.locator("#message")).to_have_text("4 references added")
    expect(page.get_by_role("heading", name=HOSTILE_LABEL)).to_be_visible()
    expect(page.get_by_text("none, it came from a set")).to_have_count(4)
    pictures_are_shown(page)
    assert len(world.wiring.references.newest(3, "Wheel", 4)) == 2


def test_the_set_of_another_project_is_used_and_one_of_it_removed(
    world: PagesWorld, watched: Watched
) -> None:
    page = watched.page
    page.goto(references(world, 3))
    page.locator("select[name=project]").select_option("7")
    page.get_by_role("button", name="Add the set of this project").click()
    expect(page.locator("#message")).to_have_text("4 references added")
    page.get_by_role("button", name="Remove").first.click()
    expect(page.locator("#message")).to_have_text("Removed.")
    assert page.locator(".reference-card").count() == 3


def test_a_file_that_is_no_set_is_refused_whatever_its_name_and_content(
    world: PagesWorld, watched: Watched, tmp_path: Path
) -> None:
    page = watched.page
    hostile = tmp_path / "<img src=x onerror=alert(1)>.zip"
    hostile.write_bytes(b"<script>alert(1)</script>")
    page.goto(references(world, 3))
    page.locator("#upload-set").set_input_files(str(hostile))
    expect(page.locator("#message")).to_contain_text("the file is no set of references")
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr(
            "references.json",
            '{"references": [{"label": "<img src=x onerror=alert(1)>", "image": "a", "positive": "b"}]}',
        )
    page.locator("#upload-set").set_input_files(str(hostile))
    expect(page.locator("#message")).to_contain_text("a reference of '<img src=x onerror=alert(1)>'")


def test_a_photograph_that_is_gone_is_said_with_the_reason(world: PagesWorld, watched: Watched) -> None:
    del world.cars.images[CAR]
    page = watched.page
    page.goto(references(world))
    expect(page.locator(".no-picture").first).to_contain_text("404")
    expect(page.locator(".reference-card img")).to_have_count(2)


def test_the_references_of_a_label_are_tried_on_a_task(world: PagesWorld, watched: Watched) -> None:
    page = watched.page
    world.annotate(world.cars, 50, 30, "car_parts_te4.jpg")
    page.goto(references(world))
    form = page.locator('form[data-label="Wheel"]')
    form.get_by_label("Task").fill("30")
    form.get_by_role("button", name="Try the references on it").click()
    page.wait_for_url("**/#trial")
    expect(page.locator("#message")).to_contain_text("task 30 of project 7, with the references of Wheel")
    expect(page.locator("#references li")).to_have_count(2)
    area = page.locator("#with").bounding_box()
    assert area is not None
    page.mouse.click(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2)
    expect(page.locator("#figure-with")).to_have_text("expected IoU 0.90")
    with_references = [job for job in world.queue.jobs if job.reference_ids]
    assert [len(job.reference_ids) for job in with_references] == [2]


def test_a_task_that_does_not_exist_is_said_beside_the_form(world: PagesWorld, watched: Watched) -> None:
    page = watched.page
    page.goto(references(world))
    form = page.locator('form[data-label="Wheel"]')
    form.get_by_label("Task").fill("999")
    for button in ("Try the references on it", "Make its regions a reference"):
        form.get_by_role("button", name=button).click()
        expect(page.locator("#message")).to_contain_text("Label Studio has no task 999")


def test_the_pages_and_the_playground_fit_their_window_and_axe_finds_nothing_serious(
    world: PagesWorld, watched: Watched
) -> None:
    page = watched.page
    found = []
    for path in ("/projects", "/projects/7/references", "/projects/99/references"):
        page.goto(world.url + path)
        assert page.locator("main").count() == 1
        assert page.locator("h1").count() == 1
        found += flaws(page)
    page.set_viewport_size({"width": 1440, "height": 1000})
    page.goto(world.url)
    expect(page.locator("#references li")).to_have_count(1)
    area = page.locator("#with").bounding_box()
    assert area is not None
    page.mouse.click(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2)
    expect(page.locator("#figure-with")).to_have_text("expected IoU 0.90")
    assert found + flaws(page) == []


def test_a_page_of_many_references_keeps_its_pictures_small(world: PagesWorld, watched: Watched) -> None:
    sizes: list[int] = []
    page = watched.page
    page.on(
        "response",
        lambda response: sizes.append(len(response.body())) if "/picture" in response.url else None,
    )
    page.goto(references(world))
    pictures_are_shown(page)
    assert len(sizes) == 4
    assert max(sizes) < 100_000
    shown = cv2.imdecode(
        np.frombuffer(page.request.get(f"{references(world)}/1/picture").body(), np.uint8), 1
    )
    assert shown is not None
    assert max(shown.shape) <= 480
