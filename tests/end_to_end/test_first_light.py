"""An annotator's first minutes, in a real Label Studio with a real browser: `make browser-test`."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from model.robot_clicker import deepest_point, intersection_over_union
from refcut_backend.core import brush_rle
from tests.end_to_end.editor import VIEWPORT, Editor, launch_chromium
from tests.end_to_end.label_studio import (
    PASSWORD,
    USER,
    BrushRegion,
    LabelStudioProject,
    LabelStudioServer,
)
from tests.recorded import LABEL_CONFIG, REPOSITORY, demo_mask
from tests.running_backend import free_port, start, wait_until_up

DEMO = REPOSITORY / "label_studio_demo"
TARGET, REFERENCE = "car_parts_te66", "car_parts_car118"
ALL_PARTS = {"front_door": "Door", "hood": "Hood", "wheel": "Wheel"}


@dataclass
class World:
    """A Label Studio with a signed-in annotator, and a backend beside it."""

    editor: Editor
    label_studio: str
    backend: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    executable = os.environ.get("REFCUT_LABEL_STUDIO")
    chromium = shutil.which("chromium")
    assert executable, "REFCUT_LABEL_STUDIO names the label-studio executable; `make browser-test` sets it"
    assert chromium, "Debian's package chromium is needed"
    port = free_port()
    backend = start(tmp_path_factory.mktemp("backend"), port)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            wait_until_up(client, backend)
        with (
            LabelStudioServer(
                Path(executable), tmp_path_factory.mktemp("label-studio"), free_port()
            ) as server,
            sync_playwright() as playwright,
        ):
            browser = launch_chromium(playwright, Path(chromium))
            editor = Editor(browser.new_page(viewport=VIEWPORT), server.url)
            editor.sign_in(USER, PASSWORD)
            yield World(editor, server.url, f"http://127.0.0.1:{port}")
            browser.close()
    finally:
        backend.send_signal(signal.SIGTERM)
        backend.communicate(timeout=60)


def project_where_door_means(world: World, part: str) -> tuple[LabelStudioProject, int]:
    """A project whose reference for the label Door is `part`; and the task of the photograph to click on."""
    project = LabelStudioProject.create(world.label_studio, f"Door means {part}", LABEL_CONFIG)
    reference, target = project.upload_images([DEMO / f"{REFERENCE}.jpg", DEMO / f"{TARGET}.jpg"])
    project.connect_backend(world.backend)
    regions = [
        BrushRegion(
            f"region-{name}", "Door" if name == part else "Wheel", demo_mask(f"{REFERENCE}_{name}"), role
        )
        for name in ALL_PARTS
        for role in ["Reference" if name == part else None]
    ]
    project.annotate(reference, regions)
    return project, target


def mask_of(region: dict[str, Any]) -> np.ndarray:
    return brush_rle.decode(region["value"]["rle"], region["original_height"], region["original_width"])


def click_on_the_door(world: World, project: LabelStudioProject, task: int) -> np.ndarray:
    """Opens the photograph, chooses Door and clicks in the middle of its front door."""
    door = demo_mask(f"{TARGET}_front_door")
    row, col = deepest_point(door)
    world.editor.open_task(project.id, task)
    world.editor.enable_auto_annotation()
    world.editor.choose_label("Door")
    answer = world.editor.click_image((col + 0.5) / door.shape[1], (row + 0.5) / door.shape[0])
    (region,) = answer["data"]["result"]
    assert region["meta"]["text"] != ["RefCut reference: none"]
    return mask_of(region)


def test_a_click_follows_the_reference_and_what_is_accepted_is_what_is_stored(world: World) -> None:
    project, task = project_where_door_means(world, "front_door")
    first_hw = click_on_the_door(world, project, task)
    assert intersection_over_union(demo_mask(f"{TARGET}_front_door"), first_hw) > 0.5
    wheel = demo_mask(f"{TARGET}_wheel")
    row, col = deepest_point(wheel)
    answer = world.editor.click_image(
        (col + 0.5) / wheel.shape[1], (row + 0.5) / wheel.shape[0], negative=True
    )
    (region,) = answer["data"]["result"]
    world.editor.accept_suggestion()
    stored = world.editor.submit()
    (kept,) = [result for result in stored["result"] if result["type"] == "brushlabels"]
    assert kept["value"]["brushlabels"] == ["Door"]
    assert kept["origin"] == "prediction"
    assert np.array_equal(mask_of(kept), mask_of(region))


def test_the_same_click_with_a_reference_of_another_part_gives_another_mask(world: World) -> None:
    masks = [
        click_on_the_door(world, *project_where_door_means(world, part)) for part in ("front_door", "hood")
    ]
    assert intersection_over_union(*masks) < 0.8
