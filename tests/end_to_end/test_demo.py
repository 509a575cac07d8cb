"""What a newcomer gets from `make demo`: projects with references, in which a click gives a mask at once."""

from __future__ import annotations

import json
from contextlib import closing

import httpx

from refcut_backend.cli.demo import DEMO_PROJECTS, demo_mask
from refcut_backend.cli.demo_label_studio import LabelStudioProject
from tests.end_to_end.click_on import click_in_the_middle
from tests.end_to_end.editor import ACTION_LIMIT_MS
from tests.end_to_end.world import World
from tests.support.worker_farm import wait_for


def test_a_click_in_the_clothes_uses_the_reference_that_came_with_them(world: World) -> None:
    demo, photograph = DEMO_PROJECTS[1], "ccp_0583"
    project_id = LabelStudioProject.titled(world.label_studio, world.token)[demo.title]
    with closing(LabelStudioProject(world.label_studio, project_id, world.token)) as project:
        tasks = dict(zip((path.stem for path in demo.photograph_paths()), project.task_ids(), strict=False))
    world.editor.open_task(project_id, tasks[photograph])
    world.editor.enable_auto_annotation()
    world.editor.choose_label("Coat")
    (region,) = click_in_the_middle(world.editor, demo_mask(photograph, "coat"))
    assert region["value"]["brushlabels"] == ["Coat"]
    assert region["meta"]["text"] != ["RefCut reference: none"]
    assert region["value"]["rle"]


def test_the_photograph_that_label_studio_offers_next_is_prepared_before_anybody_opens_it(
    world: World,
) -> None:
    demo = DEMO_PROJECTS[1]
    project_id = LabelStudioProject.titled(world.label_studio, world.token)[demo.title]
    with closing(LabelStudioProject(world.label_studio, project_id, world.token)) as project:
        opened, *others = [task for task in sorted(project.task_ids()) if not project.annotations(task)]
    world.editor.open_task(project_id, opened)
    log = world.folder / "refcut" / "backend.log"

    def prepared() -> list[int]:
        lines = [json.loads(line) for line in log.read_text().splitlines() if '"task prepared"' in line]
        return [line["task"] for line in lines if line["complete"]]

    wait_for(lambda: {opened, others[0]} <= set(prepared()), "both photographs are prepared")
    assert not {*others[1:]} & set(prepared())
    assert next_in_the_label_stream(world, project_id, annotated=opened) == others[0]


def next_in_the_label_stream(world: World, project_id: int, annotated: int) -> int:
    """The task that Label Studio offers after another one; the annotation that this needs is deleted again."""
    headers = {"Authorization": f"Token {world.token}"}
    with (
        closing(LabelStudioProject(world.label_studio, project_id, world.token)) as project,
        httpx.Client(base_url=world.label_studio, headers=headers, timeout=ACTION_LIMIT_MS / 1000) as client,
    ):
        annotation = project.submit(annotated, [])
        try:
            asked = {"id": "next_task", "project": project_id}
            return int(client.post("/api/dm/actions/", params=asked).raise_for_status().json()["id"])
        finally:
            client.delete(f"/api/annotations/{annotation}/").raise_for_status()


def test_the_account_is_readable_by_its_user_alone(world: World) -> None:
    assert (world.folder / "account.json").stat().st_mode & 0o077 == 0
