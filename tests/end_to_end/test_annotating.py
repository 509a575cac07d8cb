"""An annotator's ways of working, in the demo's cars project: several labels, steps of the mask, and Auto-Accept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from model.box_prompts import SLACK
from model.transforms import expanded_box
from model.types import Box
from refcut_backend.cli.demo import DEMO_PROJECTS, demo_mask
from refcut_backend.cli.demo_label_studio import LabelStudioProject
from refcut_backend.playground.demo import PHOTOGRAPHS
from tests.end_to_end.click_on import click_in_the_middle, mask_of
from tests.end_to_end.commands import refcut
from tests.end_to_end.editor import Editor
from tests.end_to_end.world import World
from tests.support.recorded import REPOSITORY

PHOTOGRAPH = "car_parts_te66"


@pytest.fixture
def editor_with_boxes(world: World) -> Iterator[Editor]:
    """The photograph in a project of its own that has the box tool, open with Auto-Annotation on."""
    config = (REPOSITORY / "label_config" / "clicks_box_brush.xml").read_text()
    with closing(LabelStudioProject.create(world.label_studio, "Boxes", config, world.token)) as project:
        (task_id,) = project.upload_images([PHOTOGRAPHS / f"{PHOTOGRAPH}.jpg"])
        project.connect_backend(world.backend)
    world.editor.open_task(project.id, task_id)
    world.editor.enable_auto_annotation()
    yield world.editor
    world.editor.leave()


@pytest.fixture
def editor(world: World) -> Iterator[Editor]:
    """A fresh copy of the photograph in the cars project, open with Auto-Annotation on."""
    project_id = LabelStudioProject.titled(world.label_studio, world.token)[DEMO_PROJECTS[0].title]
    with closing(LabelStudioProject(world.label_studio, project_id, world.token)) as project:
        (task_id,) = project.upload_images([PHOTOGRAPHS / f"{PHOTOGRAPH}.jpg"])
    world.editor.open_task(project_id, task_id)
    world.editor.enable_auto_annotation()
    yield world.editor
    world.editor.leave()


def click(editor: Editor, part: str, *, negative: bool = False) -> dict[str, np.ndarray]:
    """Clicks in the middle of a part; label to mask of what comes back."""
    regions = click_in_the_middle(editor, demo_mask(PHOTOGRAPH, part), negative=negative)
    return {region["value"]["brushlabels"][0]: mask_of(region) for region in regions}


def test_masks_of_several_labels_are_accepted_one_after_another_and_stored_together(editor: Editor) -> None:
    editor.choose_label("Wheel")
    click(editor, "wheel")
    wheel = click(editor, "front_door", negative=True)["Wheel"]
    editor.accept_suggestion()
    editor.choose_label("Hood")
    answer = click(editor, "hood")
    assert set(answer) == {"Hood"}
    editor.accept_suggestion()
    stored = [result for result in editor.submit()["result"] if result["type"] == "brushlabels"]
    assert {result["value"]["brushlabels"][0]: mask_of(result).sum() for result in stored} == {
        "Wheel": wheel.sum(),
        "Hood": answer["Hood"].sum(),
    }


def test_an_accepted_mask_is_not_suggested_again(editor: Editor) -> None:
    editor.choose_label("Wheel")
    click(editor, "wheel")
    editor.accept_suggestion()
    editor.submit()
    editor.choose_label("Hood")
    assert set(click(editor, "hood")) == {"Hood"}


def test_with_auto_accept_a_negative_click_refines_and_a_click_elsewhere_begins_another_object(
    editor: Editor,
) -> None:
    editor.auto_accept(on=True)
    editor.choose_label("Door")
    (first,) = click_in_the_middle(editor, demo_mask(PHOTOGRAPH, "front_door"))
    (refined,) = click_in_the_middle(editor, demo_mask(PHOTOGRAPH, "wheel"), negative=True)
    assert refined["id"] == first["id"]
    editor.choose_label("Light")
    (light,) = click_in_the_middle(editor, demo_mask(PHOTOGRAPH, "front_light"))
    assert light["id"] != first["id"]
    stored = [result for result in editor.submit()["result"] if result["type"] == "brushlabels"]
    assert {result["id"] for result in stored} == {first["id"], light["id"]}
    assert np.array_equal(mask_of(next(r for r in stored if r["id"] == first["id"])), mask_of(refined))


def step(editor: Editor, label: str, x_fraction: float) -> dict[str, Any]:
    """Clicks with Smaller or Larger in the upper left of the photograph; the one region that comes back."""
    editor.choose_label(label)
    (region,) = editor.click_image(x_fraction, 0.05)["data"]["result"]
    return dict(region)


def test_with_auto_accept_a_step_replaces_the_mask_and_its_second_label_can_be_repaired(
    world: World, editor: Editor
) -> None:
    editor.keep_label_selected()
    editor.auto_accept(on=True)
    editor.choose_label("Door")
    (first,) = click_in_the_middle(editor, demo_mask(PHOTOGRAPH, "front_door"))
    stepped = step(editor, "Larger", 0.05)
    stored = editor.submit()
    editor.keep_label_selected(on=False)
    assert {result["id"] for result in stored["result"]} == {first["id"]}
    by_type = {result["type"]: result for result in stored["result"]}
    assert by_type["keypointlabels"]["value"]["keypointlabels"] == ["Larger"], (
        "what Label Studio does by itself"
    )
    project_id = LabelStudioProject.titled(world.label_studio, world.token)[DEMO_PROJECTS[0].title]
    output = refcut(world, "masks", "repair", "--project", str(project_id))
    assert f"annotation {stored['id']}: 1 masks" in output
    with closing(LabelStudioProject(world.label_studio, project_id, world.token)) as project:
        (left,) = project.annotations(stored["task"])[0]["result"]
    assert (left["id"], left["type"]) == (first["id"], "brushlabels")
    assert np.array_equal(mask_of(left), mask_of(stepped))


def test_a_role_is_in_reach_without_scrolling_also_under_a_tall_photograph(world: World) -> None:
    demo = DEMO_PROJECTS[1]
    project_id = LabelStudioProject.titled(world.label_studio, world.token)[demo.title]
    with closing(LabelStudioProject(world.label_studio, project_id, world.token)) as project:
        first, *_ = project.task_ids()
    world.editor.open_task(project_id, first)
    world.editor.select_region(0)
    assert world.editor.role_is_in_reach("Reference")
    assert world.editor.role_is_in_reach("Negative reference")
    world.editor.leave()


def test_a_click_with_ctrl_inside_a_box_refines_its_mask(editor_with_boxes: Editor) -> None:
    (boxed,) = editor_with_boxes.draw_box("Wheel", (0.4, 0.5), (0.6, 0.8))["data"]["result"]
    editor_with_boxes.choose_label("Wheel")
    (refined,) = editor_with_boxes.click_image(0.5, 0.7, on_mask=True)["data"]["result"]
    assert refined["id"] == boxed["id"]


def test_a_box_gives_a_mask_within_its_slack_that_is_accepted_and_stored(editor_with_boxes: Editor) -> None:
    wheel_hw = demo_mask(PHOTOGRAPH, "wheel")
    height, width = wheel_hw.shape
    rows, cols = np.nonzero(wheel_hw[:, : width // 2 + width // 10])  # the front wheel
    top_left = cols.min() / width, rows.min() / height
    bottom_right = (cols.max() + 1) / width, (rows.max() + 1) / height
    answer = editor_with_boxes.draw_box("Wheel", top_left, bottom_right)
    (region,) = answer["data"]["result"]
    mask_hw = mask_of(region)
    drawn = Box(int(rows.min()), int(rows.max()), int(cols.min()), int(cols.max()))
    limits = expanded_box(drawn, height, width, expansion=SLACK, min_crop_px=1)
    inside_hw = np.zeros_like(mask_hw)
    # One pixel for rounding: the box comes in percent, and the mask is computed on what the network sees.
    inside_hw[limits.row_min - 1 : limits.row_max + 2, limits.col_min - 1 : limits.col_max + 2] = True
    assert mask_hw.any()
    assert not (mask_hw & ~inside_hw).any()
    editor_with_boxes.accept_suggestion()
    stored = [r for r in editor_with_boxes.submit()["result"] if r["type"] == "brushlabels"]
    assert [r["id"] for r in stored] == [region["id"]]
    assert np.array_equal(mask_of(stored[0]), mask_hw)
