"""An annotator's first minutes, in a real Label Studio with a real browser: `make browser-test`."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np

from model.masks import intersection_over_union
from refcut_backend.cli.demo import demo_mask
from refcut_backend.cli.demo_label_studio import BrushRegion, LabelStudioProject
from tests.end_to_end.click_on import click_in_the_middle, mask_of
from tests.end_to_end.world import World
from tests.support.demo_regions import CAR, demo_region, other_regions
from tests.support.recorded import LABEL_CONFIG, REPOSITORY

DEMO = REPOSITORY / "label_studio_demo"
TARGET, REFERENCE = "car_parts_te66", "car_parts_car118"


def project_where_wheel_means(world: World, meaning: str) -> tuple[int, int]:
    """Create a project whose reference for the label Wheel is a part or the whole car.

    Returns:
        Id of the project, and id of the task with the photograph to click on.
    """
    rest = other_regions(REFERENCE, meaning).items()
    others = [BrushRegion(name, "Door", mask_hw) for name, mask_hw in rest]
    meant = BrushRegion(meaning, "Wheel", demo_region(REFERENCE, meaning), "Reference")
    with closing(
        LabelStudioProject.create(world.label_studio, f"Wheel means {meaning}", LABEL_CONFIG, world.token)
    ) as project:
        reference, target = project.upload_images([DEMO / f"{REFERENCE}.jpg", DEMO / f"{TARGET}.jpg"])
        project.connect_backend(world.backend)
        project.annotate(reference, [meant, *others])
        return project.id, target


def click_on(world: World, part: str, *, negative: bool = False) -> dict[str, Any]:
    """Clicks in the middle of a part of the open photograph; the one region that comes back."""
    (region,) = click_in_the_middle(world.editor, demo_mask(TARGET, part), negative=negative)
    return region


def open_to_click(world: World, project_id: int, task_id: int) -> None:
    """Opens the photograph with Auto-Annotation on and the label Wheel in hand."""
    world.editor.open_task(project_id, task_id)
    world.editor.enable_auto_annotation()
    world.editor.choose_label("Wheel")


def test_a_click_follows_the_reference_and_what_is_accepted_is_what_is_stored(world: World) -> None:
    open_to_click(world, *project_where_wheel_means(world, "wheel"))
    first = click_on(world, "wheel")
    assert first["meta"]["text"] != ["RefCut reference: none"]
    assert intersection_over_union(demo_mask(TARGET, "wheel"), mask_of(first)) > 0.65
    second = click_on(world, "front_door", negative=True)
    assert second["id"] == first["id"]
    world.editor.accept_suggestion()
    stored = world.editor.submit()
    (kept,) = [result for result in stored["result"] if result["type"] == "brushlabels"]
    assert kept["value"]["brushlabels"] == ["Wheel"]
    assert kept["origin"] == "prediction"
    assert np.array_equal(mask_of(kept), mask_of(second))


def test_the_same_click_gives_the_car_where_the_reference_means_the_car(world: World) -> None:
    open_to_click(world, *project_where_wheel_means(world, CAR))
    assert intersection_over_union(demo_region(TARGET, CAR), mask_of(click_on(world, "wheel"))) > 0.65
