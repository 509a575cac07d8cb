"""A lock on the state folder: one `refcut run` at a time uses it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from refcut_backend.errors import ConfigError

FILE = "lock"
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


@contextmanager
def locked_state(state_dir: Path) -> Iterator[bool]:
    """Hold the lock of a state folder while the block runs. The kernel releases it when the process ends in any way.

    A missing folder is made, readable by its owner only: it holds tokens, photographs and annotations.

    Args:
        state_dir: The state folder.

    Yields:
        Whether the last run ended without its clean-up (SIGKILL), so that its children may still be ending.

    Raises:
        ConfigError: If another run holds the lock, or the folder cannot be written to.
    """
    try:
        state_dir.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        handle = os.open(state_dir / FILE, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    except OSError as error:
        raise _unusable(error) from None
    with os.fdopen(handle, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another `refcut run` (process {file.read().strip() or 'unknown'}) uses this state folder",
                hint="stop it first, or give this one a REFCUT_STATE_DIR of its own",
            ) from None
        except OSError as error:
            raise _unusable(error) from None
        was_killed = bool(file.read())
        try:
            _write(file.fileno(), str(os.getpid()))
        except OSError as error:
            raise _unusable(error) from None
        try:
            yield was_killed
        finally:
            with suppress(OSError):
                _write(file.fileno(), "")


def _write(handle: int, text: str) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


def _unusable(error: OSError) -> ConfigError:
    return ConfigError(
        f"the state folder cannot be used ({error.strerror})",
        hint="REFCUT_STATE_DIR must be a folder on a disk that this user can write to",
    )
