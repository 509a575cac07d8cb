"""A PostgreSQL of its own, for tests; they are skipped where none is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.running_backend import free_port

START_LIMIT_S = 60
OWNER = "refcut"


def _program(name: str) -> str:
    """Debian keeps these out of PATH."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is not installed")
    return found


@contextmanager
def running_postgresql() -> Iterator[str]:
    """SQLAlchemy URL of an empty database."""
    psycopg = pytest.importorskip("psycopg")
    initdb, postgres = _program("initdb"), _program("postgres")
    # PostgreSQL refuses to run as root; Debian's package makes this user.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="refcut-postgresql-", ignore_cleanup_errors=True) as folder:
        if user is not None:
            shutil.chown(folder, user)
        data = str(Path(folder) / "data")
        made = [initdb, "--pgdata", data, "--auth", "trust", "--username", OWNER, "--no-sync"]
        subprocess.run(made, user=user, cwd=folder, check=True, capture_output=True)
        port = free_port()
        settings = ("listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off")
        process = subprocess.Popen(
            [postgres, "-D", data, "-p", str(port), *(part for s in settings for part in ("-c", s))],
            user=user,
            cwd=folder,
            stderr=subprocess.DEVNULL,
        )
        place = f"{OWNER}@127.0.0.1:{port}/postgres"
        try:
            deadline = time.monotonic() + START_LIMIT_S
            while True:
                try:
                    psycopg.connect(f"postgresql://{place}").close()
                    break
                except psycopg.OperationalError:
                    assert time.monotonic() < deadline, "PostgreSQL did not start"
                    time.sleep(0.1)
            yield f"postgresql+psycopg://{place}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(START_LIMIT_S)
