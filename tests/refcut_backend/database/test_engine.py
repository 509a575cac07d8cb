"""Opening databases: permissions, and errors."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from refcut_backend.database.engine import open_database
from refcut_backend.errors import ConfigError


def test_the_database_with_the_tokens_is_readable_by_its_owner_only(engine, tmp_path):
    mode = (tmp_path / "state" / "refcut.db").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_database_that_others_could_read_is_made_private_with_the_files_beside_it(tmp_path):
    path = tmp_path / "refcut.db"
    with sqlite3.connect(path) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE kept (token TEXT)")
        files = [path, tmp_path / "refcut.db-wal", tmp_path / "refcut.db-shm"]
        for file in files:
            file.chmod(0o644)
        opened = open_database(f"sqlite:///{path}")
        assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
        opened.dispose()
    writer.close()


def test_a_database_whose_rights_cannot_be_changed_is_opened_with_a_warning(tmp_path, monkeypatch, caplog):
    path = tmp_path / "refcut.db"
    path.touch(0o644)
    path.chmod(0o644)

    def refuse(_path: Path, _mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    open_database(f"sqlite:///{path}").dispose()
    assert [record.levelname for record in caplog.records if "other users can read" in record.message] == [
        "WARNING"
    ]


def test_a_database_that_cannot_be_opened_is_a_clear_error_without_the_password():
    with pytest.raises(ConfigError) as error:
        open_database("sqlite:////proc/no/such/folder/secret.db")
    assert "REFCUT_DATABASE_URL" in str(error.value)


def test_a_driver_that_is_not_installed_is_named():
    with pytest.raises(ConfigError, match="pg8000") as error:
        open_database("postgresql+pg8000://user:canary@127.0.0.1/refcut")
    assert "canary" not in str(error.value)
