from __future__ import annotations

import threading

import pytest
from typer.testing import CliRunner

from refcut_backend.cli.main import app
from refcut_backend.clicks.log import ClickLog
from refcut_backend.clicks.session import ClickedObject
from refcut_backend.database.engine import open_database
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.prompts import PercentClick
from refcut_backend.training.runs import Outcome, RequestedBy, Stage, TrainingRuns
from tests.support.registry import open_registry
from tests.support.worker_farm import wait_for


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The trainings of a database that the commands use too; project 7 is connected."""
    monkeypatch.setenv("REFCUT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("REFCUT_REDIS_URL", raising=False)
    with open_registry(tmp_path) as registry:
        registry.projects.remember(7, Connection("http://ls", "t"), "<View/>")
        yield TrainingRuns(registry.engine)


def train(*arguments: str):
    return CliRunner().invoke(app, ["train", *arguments])


def test_a_training_is_requested_without_redis_and_the_web_process_puts_it_on_the_queue(runs):
    done = train("--project", "7")
    run = runs.under_way(7)
    assert done.exit_code == 0, done.output
    assert run.id in done.output
    assert run.requested_by == RequestedBy.COMMAND


def test_a_request_during_a_training_returns_the_active_run(runs):
    run, _ = runs.request(7, RequestedBy.BUTTON)
    assert f"training {run.id} is under way already" in train("--project", "7").output


@pytest.mark.parametrize(
    ("outcome", "status"), [(Outcome.PROMOTED, 0), (Outcome.NOT_PROMOTED, 0), (Outcome.FAILED, 1)]
)
def test_waiting_ends_with_the_training_and_says_how_it_ended(runs, outcome, status):
    def work() -> None:
        wait_for(lambda: runs.under_way(7), "it was asked for")
        claim = runs.claim(runs.under_way(7).id, "trainer")
        runs.progress(claim, Stage.TRAINING, 1, 2)
        runs.end(claim, outcome, "the reason", "s14-1234abcd")

    worker = threading.Thread(target=work)
    worker.start()
    done = train("--project", "7", "--wait")
    worker.join()
    assert done.exit_code == status
    assert f"{outcome.value} s14-1234abcd: the reason" in done.output


def test_the_status_lists_the_runs_of_a_project_with_what_was_left_out(runs):
    claim = runs.claim(runs.request(7, RequestedBy.BUTTON)[0].id, "trainer")
    runs.progress(claim, Stage.TRAINING, 3, 10, 42.0, {"loss": 0.123456})
    runs.leave_out(claim, ["task 3, annotation 9: the image is damaged"])
    for arguments in (["--status"], ["--status", "--project", "7"]):
        output = train(*arguments).output
        assert "project 7: 0 annotations to learn from, 0 new or changed" in output
        assert "training 3/10, about 42 s left, loss 0.1235" in output
        assert "task 3, annotation 9: the image is damaged" in output


def test_the_status_shows_how_many_clicks_accepted_masks_took(runs, tmp_path):
    runs.request(7, RequestedBy.BUTTON)
    engine = open_database(f"sqlite:///{tmp_path / 'refcut.db'}")
    clicks = (PercentClick(1, 2, True, "a"), PercentClick(3, 4, False, "b"))
    log = ClickLog(engine)
    for region_id, count in (("rc-a", 1), ("rc-b", 2)):
        door = ClickedObject("Door", "image", region_id, clicks[:count])
        log.add(7, 3, door, model_version="s14-1234abcd", reference_versions=(), milliseconds=80.0)
    log.accept(7, ["rc-a", "rc-b"])
    engine.dispose()
    output = train("--status", "--project", "7").output
    (line,) = [line for line in output.splitlines() if "Door" in line]
    assert line.replace("│", " ").split() == ["Door", "s14-1234abcd", "2", "1.5"]


def test_without_any_annotation_the_status_says_so(runs):
    assert "no annotations yet" in train("--status").output


def test_an_unknown_project_is_one_clear_line(runs):
    done = train("--project", "8")
    assert done.exit_code == 1
    assert runs.under_way(8) is None


def test_no_project_is_a_usage_error(runs):
    assert train().exit_code == 2
