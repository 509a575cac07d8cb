"""The playground in a real browser, on fakes: no network, no model, no Label Studio."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from refcut_backend.errors import WorkerStartingError
from refcut_backend.inference.frames import map_png
from refcut_backend.label_studio import brush_rle
from refcut_backend.references.parse import read_references
from tests.support.browser import Watched, chromium, watched_page
from tests.support.pages_world import PagesWorld, pages_world
from tests.support.web_process import wait_until

PLACE = (0.25, 0.5)
"""A place on the photograph, as shares of its width and height; the fake map has the probability .25 there."""

BRIGHT = """() => {
    const canvas = document.querySelector("#with");
    const [red] = canvas.getContext("2d").getImageData(canvas.width - 2, canvas.height / 2, 1, 1).data;
    return red > 200;
}"""
"""Whether the right end of the picture is bright, as the map is there and the photograph is not."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def world(tmp_path: Path) -> Iterator[PagesWorld]:
    """Every answer has a map that rises from 0 on the left to 1 on the right."""
    with pages_world(tmp_path) as opened:
        rising_hw = np.tile(np.linspace(0, 1, 400, dtype=np.float32), (300, 1))
        opened.queue.answer = replace(opened.queue.answer, map_png=map_png(rising_hw))
        yield opened


@pytest.fixture
def watched(browser: Browser, world: PagesWorld) -> Iterator[Watched]:
    """A page that fails its test if it asks another machine, runs hostile markup or breaks its own policy."""
    with watched_page(browser, world.url) as found:
        yield found
        assert found.hosts == {"127.0.0.1"}
        assert found.problems == []


def click(page: Page) -> None:
    area = page.locator("#with").bounding_box()
    assert area is not None
    page.mouse.click(area["x"] + PLACE[0] * area["width"], area["y"] + 0.8 * area["height"])
    expect(page.locator("#message")).to_contain_text(" ms (")


def colour(page: Page, place: tuple[float, float] = PLACE) -> list[int]:
    """Red, green and blue of the left picture at a place."""
    script = """(canvas, [x, y]) => [...canvas.getContext("2d").getImageData(
        Math.round(x * canvas.width), Math.round(y * canvas.height), 1, 1).data].slice(0, 3)"""
    found: list[int] = page.locator("#with").evaluate(script, list(place))
    return found


def open_playground(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#references li")).to_have_count(1)


def wait_for_preloads(world: PagesWorld, count: int) -> None:
    wait_until(lambda: len(world.queue.preloads.jobs) >= count)


def test_the_photograph_that_is_shown_is_prepared_with_its_references_before_the_first_click(
    world: PagesWorld, watched: Watched
) -> None:
    page = watched.page
    open_playground(page)
    wait_for_preloads(world, 2)
    alone, first = world.queue.preloads.jobs[:2]
    assert alone.reference_ids_by_label == ()
    assert [len(ids) for ids in first.reference_ids_by_label] == [1]
    page.locator("#strip button").nth(1).click()
    wait_for_preloads(world, 3)
    second = world.queue.preloads.jobs[2]
    assert second.image_addresses != first.image_addresses
    assert second.reference_ids_by_label == first.reference_ids_by_label
    assert world.queue.jobs == []


def click_while_the_worker_is_starting(world: PagesWorld, page: Page) -> None:
    world.queue.fails_with = WorkerStartingError("the worker is starting", hint="click again in a moment")
    area = page.locator("#with").bounding_box()
    assert area is not None
    page.mouse.click(area["x"] + area["width"] / 4, area["y"] + area["height"] / 2)
    expect(page.locator("#message")).to_contain_text("The worker is starting")
    wait_until(lambda: len(world.queue.refused) >= 2)  # one for each picture


def test_a_click_while_the_worker_is_starting_says_so_and_is_answered_as_soon_as_it_is_ready(
    world: PagesWorld, watched: Watched
) -> None:
    page = watched.page
    open_playground(page)
    click_while_the_worker_is_starting(world, page)
    expect(page.locator("#message")).not_to_have_class(re.compile("problem"))
    world.queue.fails_with = None
    expect(page.locator("#message")).to_contain_text(" ms (")
    # The two pictures' answers come in any order.
    expect(page.locator("#figure-alone")).to_contain_text("expected IoU")
    assert len(world.queue.jobs) - len(world.queue.refused) == 2, "one answer for each picture"


def test_a_click_that_waits_for_the_worker_is_not_sent_again_after_a_newer_one(
    world: PagesWorld, watched: Watched
) -> None:
    page = watched.page
    open_playground(page)
    click_while_the_worker_is_starting(world, page)
    world.queue.fails_with = None
    click(page)
    page.wait_for_timeout(2500)
    assert [len(job.clicks) for job in world.queue.jobs[-2:]] == [2, 2]
    expect(page.locator("#message")).to_contain_text(" ms (")


def test_the_probabilities_of_the_last_answer_are_shown_by_key_and_hidden_again(
    world: PagesWorld, watched: Watched
) -> None:
    page = watched.page
    open_playground(page)
    click(page)
    assert not any(job.wants_map for job in world.queue.jobs)
    before = colour(page)
    page.keyboard.press("m")
    expect(page.locator("#map")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#map-legend")).to_be_visible()
    expect(page.locator("#message")).to_contain_text(" ms (")
    page.wait_for_function(BRIGHT)
    dark, bright = colour(page, (0.02, 0.5)), colour(page, (0.98, 0.5))
    assert sum(bright) > sum(dark) + 200, "the scale runs from dark to bright"
    assert colour(page) != before
    page.keyboard.press("m")
    expect(page.locator("#map-legend")).to_be_hidden()
    assert colour(page) == before


def test_with_the_map_on_each_click_brings_its_map_and_no_click_shows_none(
    world: PagesWorld, watched: Watched
) -> None:
    page = watched.page
    open_playground(page)
    page.locator("#map").focus()
    page.keyboard.press("Enter")
    photograph = colour(page)
    click(page)
    assert all(job.wants_map for job in world.queue.jobs)
    assert colour(page) != photograph
    page.keyboard.press("Escape")
    expect(page.locator("#map")).to_have_attribute("aria-pressed", "true")
    assert colour(page) == photograph


def test_the_overlay_that_is_kept_has_the_mask_and_not_the_map(world: PagesWorld, watched: Watched) -> None:
    page = watched.page
    open_playground(page)
    click(page)
    with page.expect_download() as plain:
        page.locator("[data-download=overlay]").click()
    page.keyboard.press("m")
    expect(page.locator("#map-legend")).to_be_visible()
    expect(page.locator("#message")).to_contain_text(" ms (")
    with page.expect_download() as with_map:
        page.locator("[data-download=overlay]").click()
    assert Path(plain.value.path()).read_bytes() == Path(with_map.value.path()).read_bytes()


def paint(page: Page, place: tuple[float, float], tool: str = "p") -> None:
    """One short stroke with the brush, or with another tool."""
    page.keyboard.press(tool)
    area = page.locator("#with").bounding_box()
    assert area is not None
    x, y = area["x"] + place[0] * area["width"], area["y"] + place[1] * area["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 2, y)
    page.mouse.up()


def kept(page: Page, form: str) -> Any:
    """What is in a JSON file that the page writes."""
    with page.expect_download() as waiting:
        page.locator(f"[data-download={form}]").click()
    return json.loads(Path(waiting.value.path()).read_text())


CORNER = (0.9, 0.1)
"""A place that the fake mask leaves out, as shares of the width and the height."""


def has_corner(value: dict[str, Any], size: dict[str, int], place: tuple[float, float] = CORNER) -> bool:
    height, width = size["original_height"], size["original_width"]
    mask_hw = brush_rle.decode(value["rle"], height, width)
    return bool(mask_hw[int(place[1] * height), int(place[0] * width)])


def test_a_box_is_drawn_and_the_brush_is_used_by_keyboard(world: PagesWorld, watched: Watched) -> None:
    page = watched.page
    open_playground(page)
    page.locator("#with").focus()
    for key in ("b", "Enter", *["ArrowRight"] * 10, *["ArrowDown"] * 5, "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#message")).to_contain_text(" ms (")
    boxes = [job.box for job in world.queue.jobs if job.box is not None]
    assert {(box.left, box.top, box.right, box.bottom) for box in boxes} == {(50, 50, 60, 55)}
    for key in ("p", *["Shift+ArrowUp"] * 8, *["Shift+ArrowRight"] * 6):
        page.keyboard.press(key)
    expect(page.locator("#figure-with")).to_have_text("expected IoU 0.90")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_contain_text("The mask is corrected.")
    after = kept(page, "rle")
    assert has_corner(after, after, (0.9, 0.15))


def test_ctrl_z_takes_back_one_stroke_of_the_brush_after_the_other_and_then_the_click(
    world: PagesWorld, watched: Watched
) -> None:
    page = watched.page
    open_playground(page)
    click(page)
    answered = colour(page), colour(page, CORNER)
    paint(page, CORNER)
    painted = colour(page, CORNER)
    assert painted != answered[1]
    paint(page, CORNER, "e")
    assert colour(page, CORNER) == answered[1]
    page.keyboard.press("Control+z")
    assert colour(page, CORNER) == painted
    page.keyboard.press("Control+z")
    assert (colour(page), colour(page, CORNER)) == answered
    expect(page.locator("#figure-with")).to_have_text("expected IoU 0.90")
    page.keyboard.press("Control+z")
    expect(page.locator("#message")).to_have_text("Click on the thing.")
    expect(page.locator("#undo")).to_be_disabled()


def test_a_stroke_of_the_brush_is_seen_although_the_map_was_shown(
    world: PagesWorld, watched: Watched
) -> None:
    page = watched.page
    open_playground(page)
    click(page)
    page.keyboard.press("m")
    expect(page.locator("#map-legend")).to_be_visible()
    paint(page, CORNER)
    expect(page.locator("#map")).to_have_attribute("aria-pressed", "false")


def test_an_answer_to_a_click_that_was_taken_back_is_not_shown(world: PagesWorld, watched: Watched) -> None:
    page = watched.page
    open_playground(page)
    held: list[Route] = []
    page.route("**/playground/clicks", lambda route: held.append(route))
    area = page.locator("#with").bounding_box()
    assert area is not None
    photograph = colour(page)
    page.mouse.click(area["x"] + PLACE[0] * area["width"], area["y"] + 0.8 * area["height"])
    expect(page.locator("#message")).to_have_text("The model looks ...")
    page.keyboard.press("Control+z")
    with page.expect_response("**/playground/clicks"):
        for route in held:
            route.continue_()
    expect(page.locator("#message")).to_have_text("Click on the thing.")
    page.wait_for_timeout(500)
    expect(page.locator("#figure-with")).to_have_text("")
    assert colour(page) == photograph


def test_corrections_by_hand_are_in_every_file_and_a_task_has_its_references(
    world: PagesWorld, watched: Watched
) -> None:
    page = watched.page
    open_playground(page)
    click(page)
    before = kept(page, "rle")
    assert not has_corner(before, before)
    paint(page, CORNER)
    after = kept(page, "rle")
    assert has_corner(after, after)
    shown, reference = kept(page, "task")
    (prediction,) = shown["predictions"]
    (region,) = prediction["result"]
    assert has_corner(region["value"], region)
    assert region["value"]["brushlabels"] == ["Wheel"]
    read = read_references(reference["annotations"][0]["result"], ["refcut_role"])
    assert read.problems == ()
    (wheel,) = read.references
    assert wheel.label == "Wheel"
    assert wheel.positive_hw.any()
    assert wheel.negative_hw is not None
    page.keyboard.press("Escape")
    page.locator("[data-download=rle]").click()
    expect(page.locator("#message")).to_have_text("There is no mask yet: click on the photograph first.")
