"""The command `refcut`, as a person types it beside a running demo."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType

from tests.end_to_end.world import World
from tests.support.recorded import REPOSITORY

LIMIT_S = 900


def refcut(
    world: World,
    *arguments: str,
    status: int = 0,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Run a command on the demo's state folder.

    Args:
        world: The running demo.
        *arguments: Command and options.
        status: The exit status that is expected.
        environment: Settings that differ from the demo's.

    Returns:
        What it printed, which never holds the token.
    """
    port = world.backend.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "refcut_backend", *arguments],
        env=os.environ
        | {"REFCUT_STATE_DIR": str(world.folder / "refcut"), "REFCUT_PORT": port}
        | dict(environment),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert world.token not in done.stdout + done.stderr
    return done.stdout
