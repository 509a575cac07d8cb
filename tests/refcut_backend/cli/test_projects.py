from __future__ import annotations

from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from refcut_backend.cli.main import app
from refcut_backend.label_studio.connection import Connection
from refcut_backend.references.selection import Action, OwnerRule
from tests.support.registry import Registry, open_registry

SECOND = 1_000_000_000_007


@pytest.fixture
def registry(tmp_path, monkeypatch) -> Iterator[Registry]:
    """A database that the commands use too: two Label Studios have a project 7, one of them a project 8."""
    monkeypatch.setenv("REFCUT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("REFCUT_REDIS_URL", raising=False)
    with open_registry(tmp_path) as opened:
        opened.projects.remember(7, Connection("http://a", "token-a"), "<View/>", "1795342440")
        opened.projects.remember(7, Connection("http://b", "token-b"), "<View/>", "1795342500")
        opened.projects.remember(8, Connection("http://a", "token-a"), "<View/>", "1795342600")
        yield opened


def refcut(*arguments: str):
    return CliRunner().invoke(app, arguments)


def test_all_projects_are_listed_with_the_name_that_commands_take(registry):
    lines = [line.split() for line in refcut("projects", "list").output.splitlines() if "http" in line]
    assert [(line[1], line[5]) for line in lines] == [
        ("7", "http://a"),
        ("7#2", "http://b"),
        ("8", "http://a"),
    ]


@pytest.mark.parametrize(
    "command",
    [
        ("references", "list"),
        ("references", "disable", "--label", "Door"),
        ("models", "list"),
        ("models", "rollback"),
        ("train",),
        ("train", "--status"),
        ("prelabel",),
        ("doctor",),
        ("projects", "forget"),
    ],
    ids=" ".join,
)
def test_every_command_refuses_a_number_of_two_projects_and_lists_both(registry, command, capfd):
    done = refcut(*command, "--project", "7")
    printed = done.output + capfd.readouterr().err
    assert done.exit_code != 0
    assert "7 at http://a, created 2026-11-22 10:14:00 UTC" in printed
    assert "7#2 at http://b, created 2026-11-22 10:15:00 UTC" in printed
    assert "token" not in printed


@pytest.mark.parametrize("named", ["7#2", "7.1795342500", "http://b/projects/7/data?tab=1"])
def test_a_command_changes_the_project_that_is_named(registry, named):
    assert refcut("references", "disable", "--project", named, "--label", "Door").exit_code == 0
    rules = registry.references.rules
    assert (len(rules.of_project(7)), len(rules.of_project(SECOND))) == (0, 1)


def test_a_number_is_enough_where_it_is_unique(registry):
    assert refcut("references", "disable", "--project", "8", "--label", "Door").exit_code == 0
    assert len(registry.references.rules.of_project(8)) == 1


def test_a_project_is_forgotten_only_when_that_is_confirmed(registry):
    registry.references.rules.add(SECOND, OwnerRule(Action.DISABLE, "Door"))
    assert refcut("projects", "forget", "--project", "7#2").exit_code == 1
    assert len(registry.references.rules.of_project(SECOND)) == 1
    assert refcut("projects", "forget", "--project", "7#2", "--yes").exit_code == 0
    assert registry.references.rules.of_project(SECOND) == []
    assert registry.projects.known() == [7, 8]
