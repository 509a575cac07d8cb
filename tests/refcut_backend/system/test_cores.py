"""The cores of a process are those that its container lets it use."""

from __future__ import annotations

from pathlib import Path

import pytest

from refcut_backend.system.cores import usable_cores


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(16)))


def cores(tmp_path: Path, membership: str, files: dict[str, str]) -> int:
    """Cores with these control groups.

    membership: content of /proc/self/cgroup. files: path below /sys/fs/cgroup to content.
    """
    (tmp_path / "membership").write_text(membership)
    for name, content in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return usable_cores(tmp_path / "membership", tmp_path / "groups")


def test_a_process_has_the_cores_of_its_affinity_where_nothing_limits_it(tmp_path: Path):
    assert usable_cores(tmp_path / "missing", tmp_path) == 16
    assert cores(tmp_path, "0::/\n", {"cpu.max": "max 100000\n"}) == 16


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("400000 100000", 4), ("150000 100000", 2), ("10000 100000", 1), ("6400000 100000", 16)],
)
def test_a_container_has_the_cores_of_its_quota_rounded_up(tmp_path: Path, quota: str, expected: int):
    assert cores(tmp_path, "0::/\n", {"cpu.max": quota + "\n"}) == expected


def test_the_smallest_quota_of_the_group_and_of_those_around_it_counts(tmp_path: Path):
    files = {"system.slice/cpu.max": "300000 100000", "system.slice/refcut.service/cpu.max": "800000 100000"}
    assert cores(tmp_path, "0::/system.slice/refcut.service\n", files) == 3


@pytest.mark.parametrize("folder", ["cpu,cpuacct/docker/ab12", "cpu,cpuacct"], ids=["outside", "inside"])
def test_quotas_of_the_first_version_of_control_groups_count_inside_the_container_too(
    tmp_path: Path, folder: str
):
    files = {f"{folder}/cpu.cfs_quota_us": "200000\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
    assert cores(tmp_path, "5:devices:/docker/ab12\n4:cpu,cpuacct:/docker/ab12\n", files) == 2


def test_no_quota_and_damaged_files_limit_nothing(tmp_path: Path):
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n", "cpu.max": "much"}
    assert cores(tmp_path, "1:cpu:/\n0::/\n", files) == 16
