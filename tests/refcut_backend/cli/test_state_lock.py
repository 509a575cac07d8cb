"""The lock on the state folder, and folders that cannot be used."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from refcut_backend.cli.state_lock import FILE, locked_state
from refcut_backend.errors import ConfigError


def test_a_state_folder_is_made_for_its_owner_only_and_may_be_locked_once(tmp_path):
    state_dir = tmp_path / "a" / "state"
    with locked_state(state_dir) as was_killed:
        assert not was_killed
        assert state_dir.stat().st_mode & 0o077 == 0
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"), locked_state(state_dir):
            pass
    with locked_state(state_dir) as was_killed:
        assert not was_killed


def test_a_run_that_did_not_clean_up_is_noticed(tmp_path):
    (tmp_path / FILE).write_text("123456")
    with locked_state(tmp_path) as was_killed:
        assert was_killed


@pytest.mark.parametrize("name", ["mkdir", "open"])
def test_a_read_only_volume_is_a_clear_error(tmp_path, monkeypatch, name):
    def refuse(*_arguments: object, **_more: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    owner = Path if name == "mkdir" else os
    monkeypatch.setattr(owner, name, refuse)
    with (
        pytest.raises(ConfigError, match=r"Read-only file system.*REFCUT_STATE_DIR"),
        locked_state(tmp_path / "state"),
    ):
        pass


def test_a_lock_that_the_disk_does_not_support_is_a_clear_error(tmp_path, monkeypatch):
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("refcut_backend.cli.state_lock.fcntl.flock", refuse)
    with pytest.raises(ConfigError, match="No locks available"), locked_state(tmp_path):
        pass
