"""What a newcomer gets from `make demo`: projects with references, in which a click gives a mask at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing

import pytest

from refcut_backend.cli.demo import DEMO_PROJECTS, DemoProject, demo_mask
from refcut_backend.cli.demo_label_studio import LabelStudioProject
from tests.end_to_end.click_on import click_in_the_middle
from tests.end_to_end.editor import ACTION_LIMIT_MS, VIEWPORT, Editor
from tests.end_to_end.world import World
from tests.support.recorded import REPOSITORY


@pytest.mark.parametrize(
    ("demo", "photograph", "label", "part"),
    [
        (DEMO_PROJECTS[0], "car_parts_te66", "Hood", "hood"),
        (DEMO_PROJECTS[1], "ccp_0583", "Coat", "coat"),
    ],
    ids=["cars", "clothes"],
)
def test_a_click_in_the_demo_uses_the_reference_that_came_with_it(
    world: World, demo: DemoProject, photograph: str, label: str, part: str
) -> None:
    project_id = LabelStudioProject.titled(world.label_studio, world.token)[demo.title]
    with closing(LabelStudioProject(world.label_studio, project_id, world.token)) as project:
        tasks = dict(zip((path.stem for path in demo.photograph_paths()), project.task_ids(), strict=False))
    world.editor.open_task(project_id, tasks[photograph])
    world.editor.enable_auto_annotation()
    world.editor.choose_label(label)
    (region,) = click_in_the_middle(world.editor, demo_mask(photograph, part))
    assert region["value"]["brushlabels"] == [label]
    assert region["meta"]["text"] != ["RefCut reference: none"]
    assert region["value"]["rle"]


def test_the_three_steps_of_the_greeting_give_a_mask_in_a_fresh_browser(world: World) -> None:
    demo = DEMO_PROJECTS[0]
    project_id = LabelStudioProject.titled(world.label_studio, world.token)[demo.title]
    with closing(LabelStudioProject(world.label_studio, project_id, world.token)) as project:
        second = project.task_ids()[1]
    browser = world.editor.page.context.browser
    assert browser is not None
    with closing(browser.new_context(viewport=VIEWPORT)) as context:
        editor = Editor(context.new_page(), world.label_studio)
        editor.sign_in(*world.account)
        editor.open_task(project_id, second)
        page = editor.page
        page.get_by_test_id("bottombar-auto-annotation-toggle").check(force=True)
        page.locator(".lsf-labels").first.get_by_text("Door", exact=True).click()
        page.keyboard.press("m")
        x, y = editor.page_point(0.5, 0.5)
        with page.expect_response("**/interactive-annotating*", timeout=ACTION_LIMIT_MS) as answer:
            page.mouse.click(x, y)
        assert answer.value.json()["data"]["result"]


def test_the_doctor_finds_nothing_wrong_with_the_demo(world: World) -> None:
    port = world.backend.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "refcut_backend", "doctor"],
        env=os.environ | {"REFCUT_STATE_DIR": str(world.folder / "refcut"), "REFCUT_PORT": port},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ids = LabelStudioProject.titled(world.label_studio, world.token)
    for demo in DEMO_PROJECTS:
        assert re.search(rf"project {ids[demo.title]}\b.* the image of task", done.stdout), done.stdout
    assert "a webhook that Label Studio sent arrived here" in done.stdout
    assert world.token not in done.stdout + done.stderr


def test_the_account_is_readable_by_its_user_alone(world: World) -> None:
    assert (world.folder / "account.json").stat().st_mode & 0o077 == 0
