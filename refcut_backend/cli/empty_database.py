"""An empty database of Label Studio, kept in the program's virtual environment.

Label Studio builds its tables by several hundred migrations, one after another: 36 s of processor time at the first
start, against 4 s for a start that finds the tables. So they run once per installation, and a new folder gets a copy:

    <environment>/empty-databases/<version>.sqlite3  -- copied at the first start -->  <folder>/label_studio.sqlite3

The kept file holds tables only: no account, no key and no project.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from refcut_backend.errors import ConfigError
from refcut_backend.system.child_processes import start_bound, stop_within

DATABASE_NAME = "label_studio.sqlite3"
"""What Label Studio calls its database in its data folder."""
LIMIT_S = 900.0
"""Longest time for the migrations: 40 s on idle cores, 220 s have been seen on busy ones."""
POLL_S = 0.2
STOP_LIMIT_S = 5.0


def kept_database(executable: Path) -> Path | None:
    """Where the empty database of this Label Studio is kept, whether or not it is there yet.

    Args:
        executable: The `label-studio` command.

    Returns:
        A path that differs between versions; None if the command is not in a virtual environment that can be written.
    """
    environment = executable.parent.parent
    found = list(environment.glob("lib/python*/site-packages/label_studio-*.dist-info"))
    is_usable = (environment / "pyvenv.cfg").is_file() and os.access(environment, os.W_OK)
    if not is_usable or len(found) != 1:
        return None
    version = found[0].name.removeprefix("label_studio-").removesuffix(".dist-info")
    return environment / "empty-databases" / f"{version}.sqlite3"


def offline_environment() -> dict[str, str]:
    """Environment variables of a Label Studio that takes no settings from outside and calls nobody on the internet."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LABEL_STUDIO_", "HEARTEX_"))}
    return inherited | {
        # Analytics, version checks, error reports, feature flags.
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "FEATURE_FLAGS_OFFLINE": "true",
    }


def empty_database(executable: Path, check: Callable[[], None] = lambda: None) -> Path | None:
    """Return the kept database; run the migrations if there is none yet.

    Args:
        executable: The `label-studio` command.
        check: Called all the time; what it raises ends the migrations.

    Returns:
        The path; None if the program's folder cannot keep one. Label Studio's first start then runs the migrations.

    Raises:
        ConfigError: If Label Studio fails; the message has the end of its output.
    """
    path = kept_database(executable)
    if path is not None and not path.is_file():
        print("Label Studio makes its tables; that takes a minute, and only the first time.", flush=True)
        _make_database(executable, path, check)
    return path


def _make_database(executable: Path, path: Path, check: Callable[[], None]) -> None:
    """Run all migrations and keep the result, which appears when it is complete. Several processes may do so at once."""
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="partial-") as folder:
        log_path = Path(folder) / "log"
        with log_path.open("wb") as log:
            # The command for the version has no use for a database, and brings it up to date all the same.
            process = start_bound(
                [str(executable), "version"],
                env=offline_environment() | {"LABEL_STUDIO_BASE_DATA_DIR": folder},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        try:
            status = _wait(process, check)
        finally:
            process.terminate()
            stop_within(process, STOP_LIMIT_S)
        database = Path(folder) / DATABASE_NAME
        if status != 0 or not database.is_file():
            raise ConfigError(
                f"Label Studio could not make its database\n{log_path.read_text(errors='replace')[-3000:]}"
            )
        database.replace(path)


def _wait(process: subprocess.Popen[bytes], check: Callable[[], None]) -> int | None:
    """Exit status; None if the process took too long."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        check()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)
    return None


def copy_database(path: Path, data_dir: Path) -> None:
    """Give a new data folder the kept database. A folder that has a database keeps its own."""
    target = data_dir / DATABASE_NAME
    if target.exists():
        return
    partial = target.with_suffix(".partial")
    shutil.copyfile(path, partial)
    partial.replace(target)
