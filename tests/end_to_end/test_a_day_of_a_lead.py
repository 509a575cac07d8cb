"""A lead with a new project: a reference, its page, pre-labelling by score, the page of the trainings, the export.

Each test continues where the one before it ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import FloatRect, Page, expect
from pycocotools import mask as coco_mask

from refcut_backend.cli.demo import DEMO_PROJECTS
from refcut_backend.cli.demo_label_studio import LabelStudioProject
from refcut_backend.label_studio.regions import BrushRegion
from tests.end_to_end.click_on import mask_of
from tests.end_to_end.commands import refcut
from tests.end_to_end.editor import ACTION_LIMIT_MS
from tests.end_to_end.pictures import picture
from tests.end_to_end.world import World
from tests.support.recorded import LABEL_CONFIG

CARS = DEMO_PROJECTS[0]
LIST: FloatRect = {"x": 0, "y": 48, "width": 950, "height": 380}
PROJECTS: FloatRect = {"x": 0, "y": 0, "width": 1200, "height": 300}


@dataclass
class Day:
    """What the lead works with.

    Attributes:
        world: The running demo.
        project: A project of the lead's own: four photographs, the first one annotated.
        label_studio: The lead's calls to Label Studio.
        page: A page of the backend.
        stored: The annotations that were submitted, by task.
    """

    world: World
    project: LabelStudioProject
    label_studio: httpx.Client
    page: Page
    stored: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def first_task(self) -> int:
        """The task that is annotated."""
        return self.project.task_ids()[0]


@pytest.fixture(scope="module")
def day(world: World) -> Iterator[Day]:
    headers = {"Authorization": f"Token {world.token}"}
    browser = world.editor.page.context.browser
    assert browser is not None
    with (
        closing(LabelStudioProject.create(world.label_studio, "Cars", LABEL_CONFIG, world.token)) as project,
        httpx.Client(base_url=world.label_studio, headers=headers, timeout=200, trust_env=False) as client,
        closing(browser.new_context(viewport={"width": 1200, "height": 800})) as context,
    ):
        first, *_ = project.upload_images(CARS.photograph_paths()[:4])
        project.connect_backend(world.backend)
        regions = CARS.reference_regions()
        project.annotate(first, [BrushRegion(region.id, region.label, region.mask_hw) for region in regions])
        page = context.new_page()
        page.set_default_timeout(ACTION_LIMIT_MS)
        yield Day(world, project, client, page)
        world.editor.leave()


def test_a_region_that_is_marked_and_updated_is_a_reference_on_the_page_of_the_project(day: Day) -> None:
    editor = day.world.editor
    editor.open_task(day.project.id, day.first_task)
    (wheel,) = [number for number, region in enumerate(editor.regions()) if region.label == "Wheel"]
    editor.select_region(wheel)
    editor.set_role("Reference")
    picture(editor.page, "reference")
    day.stored[day.first_task] = editor.submit()
    day.page.goto(f"{day.world.backend}/projects/{day.project.id}/references")
    card = day.page.locator(".reference-card")
    _reload_until(day.page, lambda: card.count() == 1)
    expect(card).to_contain_text("In use")
    expect(card.locator("img")).to_have_js_property("complete", True)
    day.page.get_by_role("link", name="Projects").first.click()
    expect(day.page.get_by_role("link", name=f"Project {day.project.id}")).to_be_visible()
    picture(day.page, "projects", clip=PROJECTS)


def test_prelabelled_tasks_are_listed_by_score_and_open_with_their_masks(day: Day) -> None:
    number = day.project.id
    others = day.project.task_ids()[1:]
    output = refcut(day.world, "prelabel", "--project", str(number), "--show")
    assert output.startswith("3 tasks prelabelled")
    assert "1 annotated already" in output
    shown = _listed_by_score(day.label_studio, number)
    scores = [score for task, score in shown if task in others]
    assert None not in scores
    assert scores == sorted(scores)
    assert dict(shown)[day.first_task] is None
    editor = day.world.editor
    editor.page.goto(f"{day.world.label_studio}/projects/{number}/data")
    editor.page.get_by_text("Most uncertain").first.click()
    expect(editor.page.get_by_text(re.compile(r"^0\.\d+$")).first).to_be_visible(timeout=ACTION_LIMIT_MS)
    picture(editor.page, "data_manager_by_score", clip=LIST)
    surest = next(task for task, score in reversed(shown) if score)
    (prediction,) = day.label_studio.get("/api/predictions/", params={"task": surest}).json()
    assert 0 < prediction["score"] < 1
    editor.open_task(number, surest)
    assert [region.label for region in editor.regions()] == ["Wheel"] * len(prediction["result"])
    day.stored[surest] = editor.submit()
    assert {region["origin"] for region in day.stored[surest]["result"]} == {"prediction"}
    editor.leave()
    again = refcut(day.world, "prelabel", "--project", str(number))
    assert "2 annotated already\n2 prelabelled already" in again


def _listed_by_score(client: httpx.Client, project_id: int) -> list[tuple[int, float | None]]:
    """Tasks and their scores as the Data Manager shows them, ordered by "Prediction score"."""
    data = {"title": "By score", "ordering": ["tasks:predictions_score"]}
    view = client.post("/api/dm/views/", json={"project": project_id, "data": data}).raise_for_status().json()
    query = {"view": view["id"], "project": project_id, "page_size": 30}
    tasks = client.get("/api/tasks/", params=query).raise_for_status()
    client.delete(f"/api/dm/views/{view['id']}/").raise_for_status()
    return [(task["id"], task["predictions_score"]) for task in tasks.json()["tasks"]]


def test_the_page_of_the_trainings_counts_what_was_submitted_and_offers_a_training(day: Day) -> None:
    day.page.goto(f"{day.world.backend}/projects/{day.project.id}/training")
    expect(day.page.get_by_text("2 of 20 new or changed annotations")).to_be_visible()
    expect(day.page.get_by_role("button", name="Train now")).to_be_enabled()


def test_the_export_has_the_submitted_masks_to_the_pixel_under_their_labels(day: Day, tmp_path: Path) -> None:
    options = ["--format", "coco-rle", "--format", "yolo"]
    refcut(day.world, "export", "--project", str(day.project.id), "--out", str(tmp_path), *options)
    found = json.loads((tmp_path / "coco-rle.json").read_text())
    names = {category["id"]: category["name"] for category in found["categories"]}
    tasks = {image["id"]: image["task_id"] for image in found["images"]}
    exported = [
        (
            tasks[one["image_id"]],
            names[one["category_id"]],
            coco_mask.decode(one["segmentation"]).astype(bool),
        )
        for one in found["annotations"]
    ]
    submitted = [
        (task, result["value"]["brushlabels"][0], mask_of(result))
        for task, annotation in day.stored.items()
        for result in annotation["result"]
        if result["type"] == "brushlabels"
    ]
    assert len(exported) == len(submitted)
    for task, label, mask_hw in submitted:
        assert any((t, n) == (task, label) and np.array_equal(m, mask_hw) for t, n, m in exported), label
    assert (tmp_path / "yolo" / "classes.txt").read_text().split() == list(names.values())


def test_an_older_reference_is_moved_before_a_newer_one(day: Day) -> None:
    editor, page, number = day.world.editor, day.page, str(day.project.id)
    newer = next(task for task in day.stored if task != day.first_task)
    editor.open_task(day.project.id, newer)
    editor.select_region(0)
    editor.set_role("Reference")
    editor.submit()
    page.goto(f"{day.world.backend}/projects/{number}/references")
    cards = page.locator(".reference-card")
    _reload_until(page, lambda: cards.count() == 2)
    tasks = [int(card.get_attribute("data-task") or 0) for card in cards.all()]
    assert tasks == [newer, day.first_task]
    cards.last.get_by_role("button", name="Earlier").click()
    expect(page.locator("#message")).to_contain_text("Moved to place 1.")
    expect(cards.first).to_contain_text(f"{day.first_task}, annotation")
    picture(page, "references", whole_page=True)
    listed = refcut(day.world, "references", "list", "--project", number)
    assert re.search(rf"1 \(moved\) *│ {day.first_task} ", listed)


def _reload_until(page: Page, condition: Any) -> None:
    """The backend applies a webhook a moment after Label Studio has sent it."""
    for _ in range(100):
        if condition():
            return
        page.wait_for_timeout(200)
        page.reload()
    pytest.fail("the page never showed it")
