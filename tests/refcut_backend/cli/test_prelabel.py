"""`refcut prelabel` against a Label Studio in memory, a real Redis and real worker processes; mostly as a process too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from refcut_backend.cli import prelabel
from refcut_backend.cli.main import app
from tests.support.label_studio_api import TOKEN, LabelStudioApi, serving
from tests.support.recorded import REPOSITORY
from tests.support.registry import DOOR, WHEEL, marked, open_registry
from tests.support.worker_farm import GENEROUS_S, WorkerFarm, wait_for

LIMIT_S = 3 * GENEROUS_S
TASKS = range(101, 111)
SHIPPED = "s14-9bec7961"
LEASE_S = 6.0
"""A run that was killed keeps the next one waiting for so long: shorter here than in `refcut prelabel`."""
PROGRAM = (
    "from refcut_backend.cli import prelabel; from refcut_backend.cli.main import app; "
    f"prelabel.LEASE_S = {LEASE_S}; app(prog_name='refcut')"
)


@pytest.fixture
def api() -> Iterator[LabelStudioApi]:
    with serving(LabelStudioApi()) as api:
        yield api


@pytest.fixture
def project(api: LabelStudioApi, tmp_path) -> LabelStudioApi:
    """Project 7 with references of Door and Wheel on task 1, and ten tasks that nobody has annotated."""
    with open_registry(tmp_path) as registry:
        registry.connect(api)
        registry.follow(api.annotate(1, 1, DOOR, marked(DOOR), WHEEL, marked(WHEEL)))
    for task in TASKS:
        api.add_task(task)
    return api


def environment(farm: WorkerFarm) -> dict[str, str]:
    return {"REFCUT_STATE_DIR": str(farm.folder), "REFCUT_REDIS_URL": farm.redis_url}


def begin(farm: WorkerFarm, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "prelabel", "--project", "7", *arguments],
        env=os.environ | environment(farm),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(farm: WorkerFarm, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a process."""
    process = begin(farm, *arguments)
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def run_here(farm: WorkerFarm, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """As `run`, in this process and without the log: for what does not depend on a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prelabel, "LEASE_S", LEASE_S)
        patch.setattr("refcut_backend.cli.common.set_up_logging", lambda: None)
        done = CliRunner().invoke(
            app, ["prelabel", "--project", "7", *arguments], env=environment(farm) | settings
        )
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def predicted(api: LabelStudioApi) -> list[int]:
    return sorted(prediction["task"] for prediction in api.predictions)


@pytest.mark.slow
def test_every_open_task_gets_one_prediction_with_a_score_and_a_second_run_adds_none(farm, project):
    farm.start_worker()
    status, out, err = run(farm)
    assert (status, err) == (0, ""), err
    assert predicted(project) == list(TASKS)
    assert out.startswith(f"10 tasks prelabelled by {SHIPPED}: 20 masks\n1 annotated already\n")
    (prediction, *_) = project.predictions
    assert (prediction["model_version"], prediction["score"]) == (SHIPPED, 0.5)
    assert {region["value"]["brushlabels"][0] for region in prediction["result"]} == {"Door", "Wheel"}
    status, out, _ = run_here(farm)
    assert status == 0
    assert out == f"0 tasks prelabelled by {SHIPPED}: 0 masks\n1 annotated already\n10 prelabelled already\n"
    assert predicted(project) == list(TASKS)


@pytest.mark.slow
def test_killed_with_9_and_run_again_every_task_has_exactly_one_prediction(farm, project):
    stuck = max(TASKS) + 1
    project.add_task(stuck, "/data/upload/wait go")
    farm.start_worker()
    process = begin(farm)
    wait_for(lambda: len(project.predictions) == len(TASKS), "all but one are done", LIMIT_S)
    process.kill()
    process.communicate()
    (farm.folder / "go").touch()
    status, out, err = run_here(farm)
    assert status == 0, err
    assert f"1 tasks prelabelled by {SHIPPED}" in out
    assert "10 prelabelled already" in out
    assert predicted(project) == [*TASKS, stuck]


@pytest.mark.slow
def test_killed_in_the_midst_of_many_none_is_done_twice(farm, project):
    farm.start_worker()
    process = begin(farm)
    wait_for(lambda: len(project.predictions) >= 3, "some are done", LIMIT_S)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    status, _, err = run_here(farm)
    assert status == 0, err
    assert Counter(predicted(project)) == Counter(TASKS)


@pytest.mark.slow
def test_two_runs_at_once_do_not_double_predictions_and_the_second_says_why_it_ends(farm, project):
    project.add_task(200, "/data/upload/wait go")
    farm.start_worker()
    first = begin(farm)
    wait_for(lambda: project.predictions, "the first is at work", LIMIT_S)
    status, _, err = run_here(farm)
    assert status == 1
    assert "project 7 is being prelabelled already" in err
    (farm.folder / "go").touch()
    first.communicate(timeout=LIMIT_S)
    assert first.returncode == 0
    assert predicted(project) == [*TASKS, 200]


@pytest.mark.slow
def test_ctrl_c_leaves_the_rest_for_next_time(farm, project):
    project.add_task(200, "/data/upload/wait go")
    farm.start_worker()
    process = begin(farm)
    wait_for(lambda: len(project.predictions) == len(TASKS), "the others are done", LIMIT_S)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert out.startswith(f"10 tasks prelabelled by {SHIPPED}: 20 masks\n")
    assert predicted(project) == list(TASKS)


def test_a_task_that_fails_is_named_with_its_reason_and_the_others_are_done(farm, project):
    project.add_task(200, "/data/upload/bad")
    farm.start_worker()
    status, out, _ = run_here(farm)
    assert status == 1
    assert "1 failed\n  the image is damaged (tasks 200)" in out
    assert predicted(project) == list(TASKS)


def test_a_prediction_whose_acknowledgement_was_lost_is_not_stored_twice(farm, project):
    project.lost_answers = 2
    farm.start_worker()
    status, _, err = run_here(farm)
    assert status == 0, err
    assert predicted(project) == list(TASKS)


@pytest.mark.slow
def test_a_task_that_is_annotated_meanwhile_gets_none(farm, project):
    project.add_task(200, "/data/upload/wait go")
    farm.start_worker()
    process = begin(farm)
    wait_for(lambda: any(line.startswith("task 200") for line in farm.computed()), "it is looked at", LIMIT_S)
    project.annotate(2, 200, DOOR)
    (farm.folder / "go").touch()
    out, _ = process.communicate(timeout=LIMIT_S)
    assert "2 annotated already" in out
    assert 200 not in predicted(project)


def test_only_the_labels_that_are_named_and_an_unknown_one_is_a_clear_line(farm, project):
    farm.start_worker()
    status, out, err = run_here(farm, "--label", "Wheel")
    assert (status, out.splitlines()[0]) == (0, f"10 tasks prelabelled by {SHIPPED}: 10 masks"), err
    status, _, err = run_here(farm, "--label", "Roof")
    assert (status, err) == (1, "refcut: no reference of Roof is in use; there are some of Door, Wheel\n")


def test_label_studio_shows_them_with_the_option_show_and_the_hint_names_it(farm, project):
    farm.start_worker()
    _, out, _ = run_here(farm)
    assert f"choose {SHIPPED}" in out
    assert project.shown_version == "RefCut"
    _, out, _ = run_here(farm, "--show")
    assert project.shown_version == SHIPPED
    assert "choose" not in out
    (tab,) = project.tabs
    assert tab["data"]["title"] == "Most uncertain first"
    assert tab["data"]["ordering"] == ["tasks:predictions_score"]
    assert "tasks:predictions_score" not in tab["data"]["hiddenColumns"]["explore"]
    tab["data"]["ordering"] = []
    run_here(farm, "--show")
    assert project.tabs == [tab], "a tab that people have changed stays"


def test_without_a_worker_references_or_redis_one_line_says_what_to_do(farm, project, tmp_path):
    assert "no worker is ready" in run_here(farm)[2]
    assert "no running backend is found" in run_here(farm, REFCUT_REDIS_URL="")[2]
    with open_registry(tmp_path) as registry:
        registry.follow(project.delete_annotation(1))
    status, _, err = run_here(farm)
    assert status == 1
    assert "no label of this project has a reference that is in use" in err


@pytest.mark.slow
def test_no_secret_is_printed_or_left_in_redis(farm, project):
    project.add_task(200, "https://bucket.example.com/a.png?X-Amz-Signature=canary")
    project.add_task(201, "/data/upload/bad")
    farm.start_worker()
    _, out, err = run(farm)
    everything = out + err + "".join(str(farm.connection.dump(key)) for key in farm.connection.scan_iter("*"))
    assert TOKEN not in everything
    assert "canary" not in everything
    project.fails_with = 401
    _, out, err = run(farm)
    assert "Label Studio refuses the token" in err
    assert TOKEN not in out + err
    assert "canary" not in out + err
