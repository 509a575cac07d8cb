"""Which backends run on this machine: how a command finds the state that it is about.

`refcut run` announces itself in a folder of the user, one file per process, and keeps a lock on its file. The kernel
releases the lock when the process ends in any way, so a file without a lock is left over from a killed process.

    what there is                                        state that a command uses
    ---------------------------------------------------  --------------------------------------------
    REFCUT_STATE_DIR or REFCUT_DATABASE_URL is set       that; host and port of the backend that runs on the folder
    a backend runs on refcut-state in this folder        that
    one backend runs, on another folder                  the backend's; one line on stderr says so
    several backends run                                 none: the error names them, and how to choose
    none runs                                            refcut-state in this folder, if it has a database
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from refcut_backend.cli.state_lock import PRIVATE_FILE, PRIVATE_FOLDER
from refcut_backend.errors import ConfigError
from refcut_backend.settings import Settings

ELSEWHERE = ("database_url", "model_store")
"""Settings that move part of the state out of its folder. A command needs the same; their values may be secret."""
_CHOOSE = "choose one with REFCUT_STATE_DIR=FOLDER"


@dataclass(frozen=True)
class RunningBackend:
    """A `refcut run` of this user on this machine.

    Attributes:
        pid: Its process id.
        state_dir: Its state folder, absolute.
        host: Address that its web server listens on.
        port: Port of its web server.
        elsewhere: Those of `ELSEWHERE` that it has set.
    """

    pid: int
    state_dir: str
    host: str
    port: int
    elsewhere: tuple[str, ...]

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.state_dir} (port {self.port}, process {self.pid})"


@contextmanager
def announced(settings: Settings) -> Iterator[None]:
    """Announces this process as a running backend while the block runs. If that is not possible, it runs all the same."""
    path = _folder() / f"{os.getpid()}.json"
    backend = RunningBackend(
        pid=os.getpid(),
        state_dir=str(settings.state_dir.resolve()),
        host=settings.host,
        port=settings.port,
        elsewhere=tuple(name for name in ELSEWHERE if getattr(settings, name)),
    )
    try:
        path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    except OSError:
        yield
        return
    with os.fdopen(handle, "w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            json.dump(asdict(backend), file)
            file.flush()
            new.rename(path)  # only now: a reader would take a file without a lock for a left-over
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running_backends() -> list[RunningBackend]:
    """Returns the backends of this user that run now, by state folder. Removes what killed ones left behind."""
    found = []
    for path in _folder().glob("*.json"):
        with suppress(OSError, ValueError, TypeError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                stored = json.load(file)
                found.append(RunningBackend(**stored | {"elsewhere": tuple(stored["elsewhere"])}))
    return sorted(found, key=lambda backend: backend.state_dir)


def settings_of_backend(settings: Settings) -> Settings:
    """Returns the settings of a command with the state that it is about.

    Args:
        settings: From the environment.

    Raises:
        ConfigError: Several backends run, or the one that runs has settings that the command lacks.
    """
    running = running_backends()
    here = str(settings.state_dir.resolve())
    on_folder = next((backend for backend in running if backend.state_dir == here), None)
    if settings.model_fields_set & {"state_dir", "database_url"}:
        return settings if on_folder is None else _at_address_of(on_folder, settings)
    if on_folder is not None:
        return _with_state_of(on_folder, settings)
    if len(running) > 1:
        raise ConfigError(f"several backends run: {_listed(running)}", hint=_CHOOSE)
    if running:
        print(f"refcut: using the running backend's state in {running[0].state_dir}", file=sys.stderr)
        return _with_state_of(running[0], settings)
    return settings


def _with_state_of(backend: RunningBackend, settings: Settings) -> Settings:
    missing = [name for name in backend.elsewhere if getattr(settings, name) is None]
    if missing:
        names = " and ".join(f"REFCUT_{name.upper()}" for name in missing)
        raise ConfigError(
            f"the backend that runs on {backend.state_dir} has {names} set, and this command has not",
            hint="set the same for this command",
        )
    return _at_address_of(backend, settings.model_copy(update={"state_dir": Path(backend.state_dir)}))


def _at_address_of(backend: RunningBackend, settings: Settings) -> Settings:
    address = {"host": backend.host, "port": backend.port}
    unset = {name: value for name, value in address.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=unset)


def require_database(settings: Settings) -> None:
    """Checks that there is a database: opening a SQLite file that is not there would make an empty one.

    Raises:
        ConfigError: There is none. The message names the folder that was looked in and the backends that run.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(settings.database)
    except ArgumentError:
        return  # whoever opens it explains what is wrong
    path = Path(url.database or "")
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:" or path.exists():
        return
    raise ConfigError(
        f"there is no database in {path.parent}; running backends: {_listed(running_backends()) or 'none'}",
        hint=f"start `refcut run`, or {_CHOOSE}",
    )


def _listed(running: list[RunningBackend]) -> str:
    return "; ".join(map(str, running))


def _folder() -> Path:
    """The user's folder for state (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "refcut" / "running"
