"""An annotator's first minutes, in a real Label Studio with a real browser: `make browser-test`."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from model.robot_clicker import deepest_point, intersection_over_union
from refcut_backend.core import brush_rle
from refcut_backend.demo.demo_projects import demo_mask
from refcut_backend.demo.label_studio_project import BrushRegion, LabelStudioProject
from refcut_backend.demo.label_studio_server import LabelStudioServer, Owner
from tests.end_to_end.editor import VIEWPORT, Editor, launch_chromium
from tests.recorded import LABEL_CONFIG, REPOSITORY
from tests.running_backend import free_port, start, wait_until_up

DEMO = REPOSITORY / "label_studio_demo"
TARGET, REFERENCE = "car_parts_te66", "car_parts_car118"
OWNER = Owner("owner@example.com", "end-to-end-password", "e2e0000000000000000000000000000000000e2e")
PARTS = ("wheel", "hood", "front_door")


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
                Path(executable), tmp_path_factory.mktemp("label-studio"), free_port(), OWNER
            ) as server,
            sync_playwright() as playwright,
        ):
            browser = launch_chromium(playwright, Path(chromium))
            editor = Editor(browser.new_page(viewport=VIEWPORT), server.url)
            editor.sign_in(OWNER.user, OWNER.password)
            yield World(editor, server.url, f"http://127.0.0.1:{port}")
            browser.close()
    finally:
        backend.send_signal(signal.SIGTERM)
        backend.communicate(timeout=60)


def project_where_wheel_means(world: World, part: str) -> tuple[int, int]:
    """A project whose reference for the label Wheel is `part`: its id, and the task of the photograph to click on."""
    masks = {name: demo_mask(REFERENCE, name) for name in PARTS}
    others = [BrushRegion(name, "Door", mask_hw) for name, mask_hw in masks.items() if name != part]
    with closing(
        LabelStudioProject.create(world.label_studio, f"Wheel means {part}", LABEL_CONFIG, OWNER.token)
    ) as project:
        reference, target = project.upload_images([DEMO / f"{REFERENCE}.jpg", DEMO / f"{TARGET}.jpg"])
        project.connect_backend(world.backend)
        project.annotate(reference, [BrushRegion(part, "Wheel", masks[part], "Reference"), *others])
        return project.id, target


def mask_of(region: dict[str, Any]) -> np.ndarray:
    return brush_rle.decode(region["value"]["rle"], region["original_height"], region["original_width"])


def click_on(world: World, part: str, *, negative: bool = False) -> dict[str, Any]:
    """Clicks in the middle of a part of the open photograph; the region that comes back."""
    part_hw = demo_mask(TARGET, part)
    row, col = deepest_point(part_hw)
    height, width = part_hw.shape
    answer = world.editor.click_image((col + 0.5) / width, (row + 0.5) / height, negative=negative)
    (region,) = answer["data"]["result"]
    return dict(region)


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


def test_the_same_click_with_a_reference_of_another_part_gives_another_mask(world: World) -> None:
    masks = []
    for part in ("wheel", "hood"):
        open_to_click(world, *project_where_wheel_means(world, part))
        masks.append(mask_of(click_on(world, "wheel")))
    assert intersection_over_union(*masks) < 0.5
