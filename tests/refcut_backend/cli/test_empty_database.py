"""Label Studio's tables are made once per installation; here Label Studio is a small script."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from refcut_backend.cli.empty_database import DATABASE_NAME, copy_database, empty_database, kept_database
from refcut_backend.errors import ConfigError

MAKES_TABLES = f'echo run >> "$0.runs"; echo tables > "$LABEL_STUDIO_BASE_DATA_DIR/{DATABASE_NAME}"'


@pytest.fixture
def label_studio(tmp_path: Path) -> Path:
    """The command in a virtual environment of its own."""
    environment = tmp_path / "environment"
    (environment / "lib" / "python3.11" / "site-packages" / "label_studio-1.23.2.dist-info").mkdir(
        parents=True
    )
    (environment / "pyvenv.cfg").touch()
    command = environment / "bin" / "label-studio"
    command.parent.mkdir()
    does(command, MAKES_TABLES)
    return command


def does(command: Path, script: str) -> None:
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o700)


def runs(command: Path) -> int:
    return len(Path(f"{command}.runs").read_text().splitlines())


def test_the_migrations_run_once_and_every_new_folder_gets_a_copy(label_studio, tmp_path):
    for name in ("one", "two"):
        path = empty_database(label_studio)
        assert path is not None
        (tmp_path / name).mkdir()
        copy_database(path, tmp_path / name)
        assert (tmp_path / name / DATABASE_NAME).read_text() == "tables\n"
    assert runs(label_studio) == 1


def test_a_folder_that_has_a_database_keeps_it(label_studio, tmp_path):
    (tmp_path / DATABASE_NAME).write_text("a year's work")
    path = empty_database(label_studio)
    assert path is not None
    copy_database(path, tmp_path)
    assert (tmp_path / DATABASE_NAME).read_text() == "a year's work"


def test_another_version_of_label_studio_makes_tables_of_its_own(label_studio):
    empty_database(label_studio)
    (found,) = label_studio.parents[1].glob("lib/*/*/label_studio-*")
    found.rename(found.with_name("label_studio-1.24.0.dist-info"))
    empty_database(label_studio)
    assert runs(label_studio) == 2


def test_a_label_studio_that_fails_is_an_error_with_its_output_and_nothing_is_kept(label_studio):
    does(label_studio, "echo no such module; exit 1")
    with pytest.raises(ConfigError, match="no such module"):
        empty_database(label_studio)
    path = kept_database(label_studio)
    assert path is not None
    assert list(path.parent.iterdir()) == []


def test_migrations_that_are_not_wanted_any_more_end_and_leave_nothing(label_studio):
    does(label_studio, 'echo $$ > "$0.pid"; exec sleep 600')
    pid_file = Path(f"{label_studio}.pid")

    def check() -> None:
        if pid_file.exists() and pid_file.read_text().strip():
            raise InterruptedError

    with pytest.raises(InterruptedError):
        empty_database(label_studio, check)
    assert not psutil.pid_exists(int(pid_file.read_text()))
    path = kept_database(label_studio)
    assert path is not None
    assert list(path.parent.iterdir()) == []


def test_outside_of_a_virtual_environment_nothing_is_kept(label_studio):
    (label_studio.parents[1] / "pyvenv.cfg").unlink()
    assert empty_database(label_studio) is None
    assert not Path(f"{label_studio}.runs").exists()
