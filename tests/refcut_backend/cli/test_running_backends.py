"""Which state a command uses, and that it never makes an empty one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from refcut_backend.cli.main import app
from refcut_backend.cli.running_backends import announced, running_backends, settings_of_backend
from refcut_backend.settings import Settings
from tests.support.label_studio_api import LabelStudioApi
from tests.support.recorded import REPOSITORY
from tests.support.registry import open_registry

ANNOUNCES = (
    "import sys, time; from pathlib import Path; from refcut_backend.cli.running_backends import announced; "
    "from refcut_backend.settings import Settings\n"
    "with announced(Settings(state_dir=Path(sys.argv[1]), port=9123)): print('up', flush=True); time.sleep(600)"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A folder without state, in which the commands are given; the user has no backend yet."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    for name in ("REFCUT_STATE_DIR", "REFCUT_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


@contextmanager
def backend(state_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has announced itself as a backend on this folder, which has a database with project 7."""
    state_dir.mkdir(exist_ok=True)
    with open_registry(state_dir) as registry:
        api = LabelStudioApi()
        api.url = "http://127.0.0.1:1"
        registry.connect(api)
    command = [sys.executable, "-c", ANNOUNCES, str(state_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def refcut(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_a_command_finds_the_backend_that_runs_and_says_whose_state_it_uses(tmp_path, elsewhere):
    with backend(tmp_path / "demo") as process:
        (found,) = running_backends()
        assert (found.pid, found.port) == (process.pid, 9123)
        result = refcut("projects", "list")
    assert "127.0.0.1:1" in result.stdout
    assert f"using the running backend's state in {tmp_path / 'demo'}" in result.stderr
    assert list(elsewhere.iterdir()) == []


def test_of_several_backends_none_is_guessed(tmp_path):
    with backend(tmp_path / "first"), backend(tmp_path / "second"):
        result = refcut("projects", "list")
    assert result.exit_code == 1
    assert f"{tmp_path / 'first'} (port 9123" in result.stderr
    assert f"{tmp_path / 'second'} (port 9123" in result.stderr
    assert "REFCUT_STATE_DIR" in result.stderr


def test_the_backend_of_this_folder_goes_first(tmp_path, elsewhere):
    with backend(tmp_path / "demo"), backend(elsewhere / "refcut-state"):
        result = refcut("projects", "list")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        ["projects", "list"],
        ["references", "list", "--project", "3"],
        ["models", "list", "--project", "3"],
        ["train", "--project", "3", "--status"],
        ["prelabel", "--project", "3"],
        ["export", "--project", "3", "--out", "out"],
        ["doctor", "--project", "3"],
    ],
    ids=lambda command: command[0],
)
def test_without_state_a_command_says_where_it_looked_and_makes_nothing(elsewhere, command):
    result = refcut(*command)
    assert result.exit_code == 1
    assert f"there is no database in {elsewhere / 'refcut-state'}; running backends: none" in result.stderr
    assert list(elsewhere.iterdir()) == []


def test_a_killed_backend_is_no_longer_found(tmp_path):
    with backend(tmp_path / "demo") as process:
        process.kill()
        process.wait()
        assert running_backends() == []
    assert list((tmp_path / "xdg" / "refcut" / "running").iterdir()) == []


def test_a_named_folder_is_used_whatever_runs(tmp_path, elsewhere, monkeypatch):
    with open_registry(elsewhere):
        pass
    monkeypatch.setenv("REFCUT_STATE_DIR", str(elsewhere))
    with backend(tmp_path / "demo"):
        result = refcut("projects", "list")
    assert "no Label Studio has called /setup yet" in result.stdout


def test_a_named_folder_is_asked_at_the_port_of_the_backend_that_runs_on_it(tmp_path):
    folder = tmp_path / "demo"
    with backend(folder):
        assert settings_of_backend(Settings(state_dir=folder)).port == 9123
        assert settings_of_backend(Settings(state_dir=folder, port=9000)).port == 9000
        assert settings_of_backend(Settings(state_dir=tmp_path)).port == 9090


def test_a_setting_that_moves_the_state_must_be_given_to_the_command_too(tmp_path):
    secret = "sqlite:////somewhere/secret.db"
    with announced(Settings(state_dir=tmp_path, database_url=secret)):
        written = next((tmp_path / "xdg" / "refcut" / "running").glob("*.json"))
        assert "secret" not in written.read_text()
        assert written.stat().st_mode & 0o077 == 0
    program = ANNOUNCES.replace("port=9123", f"port=9123, database_url={secret!r}")
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        process.stdout.readline()
        result = refcut("projects", "list")
        process.kill()
    assert "REFCUT_DATABASE_URL set, and this command has not" in result.stderr
    assert secret not in result.stderr


def test_a_folder_in_which_nothing_can_be_announced_does_not_keep_a_backend_from_running(
    tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with announced(Settings(state_dir=tmp_path)):
        assert running_backends() == []
