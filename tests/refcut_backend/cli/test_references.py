"""`refcut references` as a process of its own, beside a Label Studio."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from refcut_backend.cli.main import app
from refcut_backend.label_studio.connection import Connection
from refcut_backend.references.pictures import GREEN, RED
from tests.refcut_backend.references.test_registry import annotation_update, reference
from tests.support.fake_wiring import FakeMeasureQueue
from tests.support.label_studio_api import TOKEN
from tests.support.recorded import LABEL_CONFIG, REPOSITORY
from tests.support.registry import DOOR, MOVED, WHEEL, marked


@pytest.fixture
def refcut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs `refcut references ...` on the registry's database, in this process."""
    monkeypatch.setenv("REFCUT_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("refcut_backend.cli.common.set_up_logging", lambda: None)

    def run(*arguments: str, fails: bool = False) -> str:
        done = CliRunner().invoke(app, ["references", *arguments], env={"NO_COLOR": "1"})
        assert (done.exit_code != 0) == fails, done.output
        assert TOKEN not in done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.output

    return run


def test_the_command_is_there(registry, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "refcut_backend", "references", "list", "--project", "99"],
        env=os.environ | {"REFCUT_STATE_DIR": str(tmp_path)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "Settings > Model" in line


def test_other_commands_do_not_wait_for_label_studios_sdk():
    script = "import sys, refcut_backend.cli.main; print([name for name in sys.modules if 'label_studio_sdk.' in name])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "label_studio_sdk.base_client" not in done.stdout


def test_the_list_shows_every_reference_its_state_and_its_weaknesses(registry, label_studio_api, refcut):
    assert "no references" in refcut("list", "--project", "7")
    registry.follow(label_studio_api.annotate(1, 10, DOOR, WHEEL, marked(DOOR)))
    registry.follow(label_studio_api.annotate(2, 20, DOOR, marked(DOOR)))
    print(refcut("disable", "--project", "7", "--label", "Door", "--task", "20"))
    shown = refcut("list", "--project", "7")
    first, second = (line for line in shown.splitlines() if "Door" in line)
    assert [part.strip() for part in first.split("│")][1:5] == ["Door", "1", "10", "1"]
    assert "in use" in first
    assert "disabled" in second
    assert "nothing says what must stay out" in second


def test_a_label_cannot_speak_to_the_terminal(registry, label_studio_api, refcut):
    label = "\x1b[31mred[/red][bold]x"
    registry.references.annotations.apply_webhook(
        annotation_update(5, 1, reference(4, label), project=7), "ANNOTATION_CREATED"
    )
    shown = refcut("list", "--project", "7")
    assert "\x1b" not in shown
    assert "[31mred[/red][bold]x" in shown


def test_a_whole_task_is_named_pinned_and_taken_back(registry, label_studio_api, refcut):
    label_studio_api.annotate(1, 10, DOOR, WHEEL)
    registry.follow(label_studio_api.annotate(2, 20, WHEEL, marked(WHEEL)))
    where = ("--project", "7", "--label", "Wheel")
    assert "annotation 1" in refcut("add", *where, "--task", "10")
    assert sorted(registry.in_use("Wheel")) == [1, 2]
    refcut("pin", *where, "--task", "10")
    assert registry.in_use("Wheel") == [1]
    registry.follow(label_studio_api.annotate(1, 10, MOVED, WHEEL))
    assert registry.in_use("Wheel") == [1]
    refcut("unpin", *where, "--task", "10")
    refcut("remove", *where, "--task", "10")
    assert registry.in_use("Wheel") == [2]
    assert "no region of" in refcut("add", "--project", "7", "--label", "Hood", "--task", "10", fails=True)
    assert "not added" in refcut("remove", *where, "--task", "10", fails=True)


def test_references_are_moved_and_the_list_shows_their_places(
    registry, label_studio_api, refcut, monkeypatch
):
    monkeypatch.setenv("REFCUT_MAX_REFERENCES_PER_LABEL", "2")
    for number in (1, 2, 3):
        registry.follow(label_studio_api.annotate(number, 10 * number, DOOR, marked(DOOR)))
    where = ("--project", "7", "--label", "Door")

    def shown() -> list[list[str]]:
        lines = (line for line in refcut("list", "--project", "7").splitlines() if "Door" in line)
        cells = [[part.strip() for part in line.split("\N{BOX DRAWINGS LIGHT VERTICAL}")] for line in lines]
        return [row[2:4] for row in cells if row[1] == "Door"]

    assert shown() == [["1", "30"], ["2", "20"], ["3", "10"]]
    assert "'Door', task 10 has place 1\n" in refcut("move", *where, "--task", "10", "--to", "1")
    assert shown() == [["1 (moved)", "10"], ["2", "30"], ["3", "20"]]
    assert "place 3; clicks use the first 2" in refcut("move", *where, "--task", "10", "--to", "9")
    assert "newest references are used first" in refcut("newest-first", *where)
    assert shown() == [["1", "30"], ["2", "20"], ["3", "10"]]
    assert "no reference of 'Door' was moved" in refcut("newest-first", *where, fails=True)
    assert "--to" in refcut("move", *where, "--task", "10", "--to", "0", fails=True)


def test_show_draws_the_target_green_and_what_must_stay_out_red(registry, label_studio_api, refcut, tmp_path):
    grey = np.full((20, 60, 3), 120, np.uint8)
    label_studio_api.images["10.png"] = cv2.imencode(".png", grey)[1].tobytes()
    registry.follow(label_studio_api.annotate(1, 10, DOOR, WHEEL, marked(DOOR)))
    path = tmp_path / "shown.png"
    where = ("show", "--project", "7", "--label", "Door", "--out")
    assert refcut(*where, str(path)).strip() == str(path)
    drawn = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert drawn.shape == grey.shape
    assert (drawn[:, :25] == GREEN).all(axis=2).any()
    assert (drawn[:, 25:] == RED).all(axis=2).any()
    assert not (drawn[:, :25] == RED).all(axis=2).any()
    assert "cannot be written" in refcut(*where, str(tmp_path / "no" / "folder.png"), fails=True)
    label_studio_api.fails_with = 401
    assert "401" in refcut(*where, str(path), fails=True)


def test_references_move_to_another_project_as_a_file_and_back_out_again(
    registry, label_studio_api, refcut, tmp_path
):
    label_studio_api.images["10.png"] = cv2.imencode(".png", np.full((20, 60, 3), 120, np.uint8))[1].tobytes()
    registry.follow(label_studio_api.annotate(1, 10, DOOR, WHEEL, marked(DOOR)))
    registry.projects.remember(8, Connection("http://other.test", "t"), LABEL_CONFIG)
    path = tmp_path / "set.zip"
    assert "1 references" in refcut("export", "--project", "7", "--out", str(path))
    assert refcut("import", "--project", "8", "--file", str(path)).strip() == "1 references added"
    assert "1 were there already" in refcut("import", "--project", "8", "--from-project", "7")
    (number,) = registry.in_use("Door", project=8)
    assert number < 0
    assert str(number) in refcut("list", "--project", "8")
    refcut("remove", "--project", "8", "--label", "Door", f"--annotation={number}")
    assert registry.in_use("Door", project=8) == []
    assert "cannot be read" in refcut("import", "--project", "8", "--file", str(tmp_path), fails=True)
    assert "--from-project" in refcut("import", "--project", "8", fails=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "--project", "99"), "Settings > Model"),
        (("list", "--project", "0"), "--project"),
        (("pin", "--project", "7", "--label", "Door"), "--task"),
        (("show", "--project", "7", "--label", "Door"), "no reference"),
    ],
)
def test_a_wrong_word_is_one_clear_message_and_a_failure(label_studio_api, refcut, arguments, message):
    assert message in refcut(*arguments, fails=True)


def test_worth_measures_shows_progress_and_prints_what_the_page_shows(
    registry, label_studio_api, refcut, monkeypatch
):
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    registry.follow(*(label_studio_api.annotate(number, 10 * number, DOOR) for number in range(2, 8)))
    queue = FakeMeasureQueue()
    queue.problems[20] = "\x1b[31mlost"
    monkeypatch.setattr("refcut_backend.queue.redis.find_redis", lambda _settings: "redis://127.0.0.1:1")
    monkeypatch.setattr("refcut_backend.wiring.MeasureQueue", lambda _connection: queue)
    assert "not measured" in refcut("worth", "--project", "7", "--show")
    assert queue.jobs == []
    shown = refcut("worth", "--project", "7")
    assert "1 reference measured on 5 annotated masks" in shown
    assert "task 20: \N{REPLACEMENT CHARACTER}[31mlost" in shown
    assert "First click with it .60, without .50, on 5 tasks: better on 5, worse on 0." in shown
    assert "First click with it .60" in refcut("worth", "--project", "7", "--show")
    assert "no reference to measure of 'Hood'" in refcut(
        "worth", "--project", "7", "--label", "Hood", fails=True
    )
    queue.workers_ready = 0
    assert "no worker is ready" in refcut("worth", "--project", "7", fails=True)
