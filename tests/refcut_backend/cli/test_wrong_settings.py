"""What is wrong with a setting is one line that says what to do, and no traceback."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from refcut_backend import __version__
from refcut_backend.cli.demo import run_demo
from refcut_backend.cli.main import app
from refcut_backend.cli.run import check_port_is_free
from refcut_backend.errors import ConfigError
from refcut_backend.settings import Settings


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFCUT_STATE_DIR", str(tmp_path / "state"))


def refcut(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("variable", "value", "advice"),
    [
        ("REDIS_URL", "localhost:6379", "such as redis://localhost:6379/0"),
        ("DEVICE", "gpu", "cuda (a GPU)"),
        ("HOST", "0.0.0.0.0", "REFCUT_HOST must be an address"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_should_be(monkeypatch, variable, value, advice):
    monkeypatch.setenv(f"REFCUT_{variable}", value)
    result = refcut("run")
    assert result.exit_code == 1
    assert advice in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("nonsense", "begins with sqlite:/// or postgresql+psycopg://"),
        ("postgres://user:canary@127.0.0.1:1/refcut", "begins with sqlite:/// or postgresql+psycopg://"),
        ("postgresql+psycopg://user:canary@127.0.0.1:1/refcut", "the server at 127.0.0.1:1 runs"),
        ("sqlite:////proc/refcut/refcut.db", "can be written to"),
    ],
)
def test_a_wrong_database_url_says_what_to_check_and_no_password(monkeypatch, url, advice):
    monkeypatch.setenv("REFCUT_DATABASE_URL", url)
    result = refcut("run")
    assert result.exit_code == 1
    assert advice in result.stderr
    assert "canary" not in result.stderr


def test_a_taken_port_is_named_with_its_setting(monkeypatch, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("REFCUT_PORT", str(port))
        monkeypatch.setenv("REFCUT_REDIS_URL", "redis://127.0.0.1:1/0")
        result = refcut("serve")
        assert result.exit_code == 1
        assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
        assert "another one with REFCUT_PORT" in result.stderr
        command = tmp_path / "label-studio"
        command.touch()
        with pytest.raises(ConfigError, match="--label-studio-port"):
            run_demo(Settings(), tmp_path / "demo", command, port)
    assert not (tmp_path / "demo").exists(), "nothing has been started"


def test_a_port_that_becomes_free_in_time_is_no_problem():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check_port_is_free("127.0.0.1", port)


def test_a_variable_that_is_no_setting_is_named_with_the_one_that_is_meant(monkeypatch):
    monkeypatch.setenv("REFCUT_WORKER", "3")
    monkeypatch.setenv("REFCUT_COLOUR_OF_THE_SKY", "blue")
    monkeypatch.setenv("REFCUT_LABEL_STUDIO", "/the/command/of/the/tests")
    result = refcut("settings", "--effective")
    assert "REFCUT_WORKER is no setting; is REFCUT_WORKERS meant?" in result.stderr
    assert "REFCUT_COLOUR_OF_THE_SKY is no setting; `refcut settings` lists all" in result.stderr
    assert "/the/command" not in result.stderr
    assert result.stderr.count("\n") == 2


def test_the_effective_settings_say_where_they_come_from_and_no_secret(monkeypatch):
    monkeypatch.setenv("REFCUT_WORKERS", "3")
    monkeypatch.setenv("REFCUT_REDIS_URL", "redis://user:canary@host:6379/0")
    monkeypatch.setenv("REFCUT_WEBHOOK_SECRET", "canary")
    result = refcut("settings", "--effective")
    rows = {line.split()[1]: line.split()[3::2] for line in result.stdout.splitlines() if "REFCUT_" in line}
    assert rows["REFCUT_WORKERS"] == ["3", "environment"]
    assert rows["REFCUT_PORT"] == ["9090", "default"]
    assert rows["REFCUT_REDIS_URL"] == ["redis://(hidden)@host:6379/0", "environment"]
    assert rows["REFCUT_WEBHOOK_SECRET"] == ["(hidden)", "environment"]
    assert "canary" not in result.stdout


def test_the_version_can_be_asked_for():
    result = refcut("--version")
    assert (result.exit_code, result.stdout) == (0, f"RefCut {__version__}\n")
