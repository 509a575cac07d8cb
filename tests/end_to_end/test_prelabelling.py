"""Before any click: the demo's cars are prelabelled, and the lead sorts them by how sure the model is."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from refcut_backend.cli.demo import DEMO_PROJECTS
from refcut_backend.cli.demo_label_studio import LabelStudioProject
from tests.end_to_end.world import World
from tests.support.recorded import LABEL_CONFIG, REPOSITORY

LIMIT_S = 900
CARS = DEMO_PROJECTS[0]


@pytest.fixture
def lead(world: World):
    """The team lead's own calls to Label Studio."""
    headers = {"Authorization": f"Token {world.token}"}
    with httpx.Client(base_url=world.label_studio, headers=headers, timeout=200, trust_env=False) as client:
        yield client


@pytest.fixture
def project(world: World):
    """Cars of its own, so that other tests find theirs as they were: the reference and two more photographs."""
    with closing(
        LabelStudioProject.create(world.label_studio, "Prelabelled", LABEL_CONFIG, world.token)
    ) as project:
        project.upload_images(CARS.photograph_paths()[:3])
        project.connect_backend(world.backend)
        project.annotate(project.task_ids()[0], CARS.reference_regions())
        yield project


def prelabel(world: World, project_id: int, *options: str) -> str:
    """The output of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "refcut_backend", "prelabel", "--project", str(project_id), *options],
        env=os.environ | {"REFCUT_STATE_DIR": str(world.folder / "refcut")},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert world.token not in done.stdout + done.stderr
    return done.stdout


def listed_by_score(lead: httpx.Client, project_id: int) -> list[tuple[int, float | None]]:
    """Tasks and their scores as the Data Manager shows them, ordered by "Prediction score"."""
    data = {"title": "By score", "ordering": ["tasks:predictions_score"]}
    view = lead.post("/api/dm/views/", json={"project": project_id, "data": data}).raise_for_status().json()
    tasks = lead.get(
        "/api/tasks/", params={"view": view["id"], "project": project_id, "page_size": 30}
    ).raise_for_status()
    return [(task["id"], task["predictions_score"]) for task in tasks.json()["tasks"]]


def test_prelabelled_tasks_are_listed_by_score_and_open_with_their_masks(
    world: World, lead: httpx.Client, project: LabelStudioProject, tmp_path: Path
) -> None:
    reference, *others = project.task_ids()
    output = prelabel(world, project.id, "--show")
    assert output.startswith("2 tasks prelabelled")
    assert "1 annotated already" in output
    for task in others:
        (prediction,) = lead.get("/api/predictions/", params={"task": task}).json()
        assert 0 < prediction["score"] < 1
        assert all(0 < region["score"] < 1 for region in prediction["result"])
    shown = listed_by_score(lead, project.id)
    scores = [score for task, score in shown if task in others]
    assert None not in scores
    assert scores == sorted(scores)
    assert dict(shown)[reference] is None
    surest = shown[1][0]
    world.editor.open_task(project.id, surest)
    (prediction,) = lead.get("/api/predictions/", params={"task": surest}).json()
    labels = [region["value"]["brushlabels"][0] for region in prediction["result"]]
    assert [region.label for region in world.editor.regions()] == labels
    stored = world.editor.submit()
    assert {region["origin"] for region in stored["result"]} <= {"prediction", "prediction-changed"}
    assert [region["value"]["brushlabels"][0] for region in stored["result"]] == labels
    world.editor.leave()
    assert "2 annotated already\n1 prelabelled already" in prelabel(world, project.id)
