"""How many processor cores this process may use.

The affinity of a process counts the cores that it may run on. A limit of a container or of systemd is a quota of time on
them instead: `docker run --cpus 4`, `limits.cpu: 4` in Kubernetes and `CPUQuota=400%` all leave the affinity at the 64
cores of the machine. 64 threads would then use up the quota of each tenth of a second within milliseconds, and be stopped
for the rest of it. The quota stands in the files of the process's control group:

    version   file                                    content
    -------   -------------------------------------   --------------------------------
    2         cpu.max                                 "400000 100000", "max 100000"
    1         cpu.cfs_quota_us, cpu.cfs_period_us     "400000" and "100000"; "-1": none
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def usable_cores(membership: Path = MEMBERSHIP, groups: Path = GROUPS) -> int:
    """Count the cores that this process may keep busy: its affinity, limited by the quotas of its control groups.

    Args:
        membership: File with the control groups of this process.
        groups: Folder of the control groups.

    Returns:
        At least 1. A quota of 1.5 cores counts as 2.
    """
    allowed = len(os.sched_getaffinity(0))
    return max(math.ceil(min([allowed, *_quotas(membership, groups)])), 1)


def _quotas(membership: Path, groups: Path) -> Iterator[float]:
    """The quotas of the group and of all groups around it, in cores. Files that are missing or damaged have none."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = groups / controllers
        # In a container the name may be that of the group outside, which is not in sight. Then the top is its own group.
        folder = top / name.lstrip("/")
        for group in (folder, *folder.parents):
            with suppress(OSError, ValueError, ZeroDivisionError):
                quota, period = _version_1(group) if controllers else (group / "cpu.max").read_text().split()
                if quota not in ("max", "-1"):
                    yield int(quota) / int(period)
            if group == top:
                break


def _version_1(group: Path) -> tuple[str, str]:
    quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    return quota, period
