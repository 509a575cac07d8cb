"""`python -m model COMMAND`: one program for everything that is run by hand."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from model.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_help_lists_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(argv)
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python -m model COMMAND")
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_that_names_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m model {command} ")


def test_every_module_of_a_command_is_listed() -> None:
    files = {path.stem.replace("_", "-") for path in (ROOT / "model" / "cli").glob("*.py")}
    assert files - {"--init--", "main", "common"} == set(COMMANDS)


def test_an_unknown_command_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["segmnt", "picture.png"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: there is no command 'segmnt'; see python -m model --help\n"


@pytest.mark.parametrize(("command", "goes_on"), [("evaluate", True), ("average", False)])
def test_ctrl_c_ends_a_command_in_one_line_that_says_whether_it_can_go_on(
    command: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_argv: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"model.cli.{command}.main", interrupted)
    with pytest.raises(SystemExit) as ended:
        main([command])
    assert ended.value.code == 130
    assert (
        capsys.readouterr().err
        == "\nstopped by Ctrl-C" + goes_on * ("; the same command goes on from what it has saved") + "\n"
    )


def test_the_help_of_the_program_needs_no_torch() -> None:
    script = "import sys; from model.cli.main import main; main(['--help']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_program_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "model", "--help"], capture_output=True, text=True, check=True
    )
    assert "segment" in done.stdout


def test_the_console_script_is_the_same_program() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert EntryPoint("refcut-model", scripts["refcut-model"], "console_scripts").load() is main
