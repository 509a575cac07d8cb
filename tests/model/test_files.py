"""A file is complete or as it was, whatever happens while it is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.files import PARTIAL, atomic_write


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_written_with_its_folders_and_nothing_is_left_beside_it(
    tmp_path: Path, shared: bool
) -> None:
    path = tmp_path / "a" / "b" / "plan.json"
    with atomic_write(path, shared=shared) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == {"plan.json"}


@pytest.mark.parametrize("shared", [False, True])
def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, shared: bool) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")

    def write_half() -> None:
        with atomic_write(path, shared=shared) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert names(tmp_path) == {"plan.json"}


def test_a_killed_write_leaves_the_file_as_it_was_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    script = (
        "import os, pathlib, sys; from model.files import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -9
    assert path.read_text() == "old"
    assert [name for name in names(tmp_path) if name.endswith(PARTIAL)]
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert (path.read_text(), names(tmp_path)) == ("new", {"plan.json"})


def test_two_writers_of_a_shared_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "pointer"
    with atomic_write(path, shared=True) as first, atomic_write(path, shared=True) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def test_the_content_is_on_the_disk_before_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append("flush"))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("rename"), replace(*paths)))
    with atomic_write(tmp_path / "plan.json") as temporary:
        temporary.write_text("new")
    assert done == ["flush", "rename", "flush"]
