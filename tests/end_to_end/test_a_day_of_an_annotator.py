"""A new annotator in the demo: the greeting's three steps, corrections, the tick, and one that is forgotten.

Each test continues where the one before it ended.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import FloatRect, Page, expect

from model.masks import deepest_point, intersection_over_union
from refcut_backend.cli.demo import DEMO_PROJECTS, demo_mask
from refcut_backend.cli.demo_label_studio import LabelStudioProject
from tests.end_to_end.click_on import click_in_the_middle, fractions_of, mask_of
from tests.end_to_end.commands import refcut
from tests.end_to_end.editor import ACTION_LIMIT_MS, VIEWPORT, Editor
from tests.end_to_end.pictures import picture
from tests.end_to_end.world import World

CARS = DEMO_PROJECTS[0]
BOTTOM_BAR: FloatRect = {"x": 240, "y": 705, "width": 840, "height": 295}
LABELS: FloatRect = {"x": 240, "y": 90, "width": 840, "height": 400}
PHOTOGRAPH: FloatRect = {"x": 240, "y": 90, "width": 840, "height": 910}
FIRST, SECOND, OTHER = "car_parts_te66", "car_parts_te35", "car_parts_te4"


@dataclass
class Day:
    """The annotator's browser.

    Attributes:
        world: The running demo.
        editor: A browser that has never seen this Label Studio.
        project: The demo's cars.
        tasks: Name of a photograph to its task.
        beside: A narrow window beside Label Studio, with the page of the last click.
        seen: Regions that later steps compare with.
    """

    world: World
    editor: Editor
    project: LabelStudioProject
    tasks: dict[str, int]
    beside: Page
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def day(world: World) -> Iterator[Day]:
    number = LabelStudioProject.titled(world.label_studio, world.token)[CARS.title]
    browser = world.editor.page.context.browser
    assert browser is not None
    with (
        closing(LabelStudioProject(world.label_studio, number, world.token)) as project,
        closing(browser.new_context(viewport=VIEWPORT)) as context,
        closing(browser.new_context(viewport={"width": 390, "height": 700})) as narrow,
    ):
        editor = Editor(context.new_page(), world.label_studio)
        editor.sign_in(*world.account)
        names = (path.stem for path in CARS.photograph_paths())
        tasks = dict(zip(names, project.task_ids(), strict=False))
        yield Day(world, editor, project, tasks, narrow.new_page())


def test_the_three_steps_of_the_greeting_give_a_mask_that_follows_the_reference(day: Day) -> None:
    editor, page = day.editor, day.editor.page
    editor.open_task(day.project.id, day.tasks[FIRST])
    page.get_by_test_id("bottombar-auto-annotation-toggle").check(force=True)
    picture(page, "step-1-auto-annotation", clip=BOTTOM_BAR)
    page.locator(".lsf-labels").first.get_by_text("Wheel", exact=True).click()
    picture(page, "step-2-label", clip=LABELS)
    page.keyboard.press("m")
    wheel = demo_mask(FIRST, "wheel")
    x, y = editor.page_point(*fractions_of(wheel))
    with page.expect_response("**/interactive-annotating*", timeout=ACTION_LIMIT_MS) as answer:
        page.mouse.click(x, y)
    (region,) = answer.value.json()["data"]["result"]
    picture(page, "step-3-click", clip=PHOTOGRAPH)
    assert region["meta"]["text"] != ["RefCut reference: none"]
    assert intersection_over_union(wheel, mask_of(region)) > 0.65
    day.seen["first"] = region


def test_a_click_with_alt_takes_away(day: Day) -> None:
    day.editor.choose_label("Wheel")
    (region,) = click_in_the_middle(day.editor, demo_mask(FIRST, "front_door"), negative=True)
    picture(day.editor.page, "click")
    assert region["id"] == day.seen["first"]["id"]
    assert not mask_of(region)[deepest_point(demo_mask(FIRST, "front_door"))]
    day.seen["corrected"] = region


def test_a_page_beside_label_studio_shows_the_last_click_and_its_mask(day: Day) -> None:
    page = day.beside
    page.goto(f"{day.world.backend}/status/clicks")
    expect(page.locator("#last")).to_contain_text("Wheel")
    expect(page.locator("#last")).to_contain_text("1 reference")
    expect(page.locator("#mask")).to_be_visible()
    picture(page, "clicks", whole_page=True)


def test_what_the_tick_accepts_is_what_submit_stores(day: Day) -> None:
    day.editor.accept_suggestion()
    (stored,) = day.editor.submit()["result"]
    assert (stored["type"], stored["origin"]) == ("brushlabels", "prediction")
    assert stored["value"]["brushlabels"] == ["Wheel"]
    assert np.array_equal(mask_of(stored), mask_of(day.seen["corrected"]))


def test_the_page_beside_label_studio_says_why_a_click_gave_no_mask_and_what_helps(day: Day) -> None:
    day.editor.open_task(day.project.id, day.tasks[OTHER])
    day.editor.choose_label("Larger")
    assert day.editor.click_image(0.04, 0.05)["data"]["result"] == []
    page = day.beside
    expect(page.locator("#last")).to_contain_text("No mask.")
    expect(page.locator("#last")).to_contain_text("click an object of another label first")
    expect(page.locator("#mask")).to_be_hidden()
    page.set_viewport_size({"width": 1200, "height": 800})
    page.goto(f"{day.world.backend}/status")
    expect(page.locator("#failed li").first).to_contain_text("click an object of another label first")
    expect(page.locator("#latest tbody tr")).to_have_count(3)
    expect(page.locator("#speed svg")).to_be_visible()
    picture(page, "status", whole_page=True)


def test_the_next_photograph_needs_no_switch_and_its_mask_is_made_larger_and_smaller(day: Day) -> None:
    editor = day.editor
    editor.open_task(day.project.id, day.tasks[SECOND])
    expect(editor.page.get_by_test_id("bottombar-auto-annotation-toggle")).to_be_checked()
    editor.choose_label("Door")
    (first,) = click_in_the_middle(editor, demo_mask(SECOND, "front_door"))
    steps = [_step(editor, *step) for step in (("Larger", 0.04), ("Smaller", 0.08), ("Smaller", 0.12))]
    assert {region["id"] for region in steps} == {first["id"]}
    assert {region["value"]["brushlabels"][0] for region in steps} == {"Door"}
    larger, middle, smaller = (int(mask_of(region).sum()) for region in steps)
    assert smaller <= middle <= larger
    assert smaller < larger, "there is a larger or a smaller mask"
    day.seen["stepped"] = steps[-1]


def _step(editor: Editor, label: str, x_fraction: float) -> dict[str, Any]:
    """Presses the key of a step and clicks beside the car; the one region that comes back."""
    editor.choose_label(label)
    (region,) = editor.click_image(x_fraction, 0.05)["data"]["result"]
    return dict(region)


def test_a_mask_whose_tick_was_forgotten_is_counted_and_recovered(day: Day) -> None:
    stored = day.editor.submit()
    assert {result["type"] for result in stored["result"]} == {"keypointlabels"}, "what Label Studio stores"
    project = str(day.project.id)
    _wait_for_the_webhook(day)
    assert re.search(rf"^│ {project} .* │ 1 +│$", refcut(day.world, "status"), re.MULTILINE)
    output = refcut(day.world, "masks", "recover", "--project", project)
    assert f"annotation {stored['id']}: Door" in output
    ((mask,),) = (annotation["result"] for annotation in day.project.annotations(day.tasks[SECOND]))
    assert np.array_equal(mask_of(mask), mask_of(day.seen["stepped"]))


def _wait_for_the_webhook(day: Day) -> None:
    deadline = time.monotonic() + ACTION_LIMIT_MS / 1000
    address = f"{day.world.backend}/status"
    while httpx.get(address, trust_env=False).json()["masks_without_tick"] != {str(day.project.id): 1}:
        assert time.monotonic() < deadline, "the backend has not heard of the annotation"
        time.sleep(0.1)
