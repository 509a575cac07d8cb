"""A machine simulated by a quota of processor time: a control group, in which processes are started."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
REMOVAL_LIMIT_S = 10.0


@dataclass(frozen=True)
class Machine:
    """A control group with a quota.

    Attributes:
        folder: Of the group.
    """

    folder: Path

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process that belongs to the group from its first instruction on. What it prints is added to `log`."""
        enter = 'echo $$ >"$0" && exec "$@"'
        with log.open("ab") as output:
            return subprocess.Popen(
                ["sh", "-c", enter, str(self.folder / "cgroup.procs"), *command],
                env=environment,
                stdout=output,
                stderr=output,
            )


@contextmanager
def machine_with(name: str, cores: float, groups: Path = GROUPS) -> Iterator[Machine]:
    """Make a machine; it is removed afterwards.

    Args:
        name: Of the control group.
        cores: Processor time per second that all its processes may use together, in seconds.
        groups: Where Linux shows its control groups, of version 1 or 2.

    Raises:
        SystemExit: If this user may not make control groups here.
    """
    version_1 = (groups / "cpu" / "cpu.cfs_quota_us").exists()
    folder = groups / "cpu" / name if version_1 else groups / name
    quota_us = round(cores * PERIOD_US)
    try:
        folder.mkdir(exist_ok=True)
        if version_1:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    except OSError as error:
        raise SystemExit(
            f"a quota of processor time cannot be set in {groups}: {error}. Run this as root, outside a container"
        ) from error
    try:
        yield Machine(folder)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a group; Linux refuses that until its last process is gone."""
    deadline = time.monotonic() + REMOVAL_LIMIT_S
    while True:
        try:
            return os.rmdir(folder)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
