"""Machines that a quota of processor time simulates, on folders that look like Linux's control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.processor_quota import machine_with


def contents(folder: Path) -> dict[str, str]:
    """What was written, after which the files are gone: a real group is removed without its files."""
    found = {file.name: file.read_text() for file in folder.iterdir()}
    for name in found:
        (folder / name).unlink()
    return found


def test_version_2_gets_quota_and_period_in_one_file(tmp_path: Path) -> None:
    with machine_with("one", 0.7, tmp_path) as machine:
        assert contents(machine.folder) == {"cpu.max": "70000 100000"}
    assert not machine.folder.exists()


def test_version_1_gets_them_in_two(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1")
    with machine_with("one", 1.5, tmp_path) as machine:
        assert machine.folder == tmp_path / "cpu" / "one"
        assert contents(machine.folder) == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"}
    assert not machine.folder.exists()


def test_a_process_is_in_the_group_before_it_begins_and_prints_to_the_log(tmp_path: Path) -> None:
    with machine_with("one", 1, tmp_path) as machine:
        command = ["sh", "-c", 'cat "$GROUP/cgroup.procs"; echo $$; echo problem >&2']
        environment = os.environ | {"GROUP": str(machine.folder)}
        log = tmp_path / "log"
        assert machine.start(command, environment, log).wait(30) == 0
        entered, pid, problem = log.read_text().split()
        assert (entered, problem) == (pid, "problem")
        contents(machine.folder)


def test_without_the_right_to_make_groups_it_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="as root"), machine_with("one", 1, tmp_path / "missing"):
        pass
