"""Files that appear complete or not at all, whenever the process is killed. Imports no torch."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""Ending of files that are still being written. A file with it is left over from a killed process."""


@contextmanager
def atomic_write(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Write a file so that `path` holds either its old content or all of the new one.

    The content goes to a temporary file in the same folder, which is flushed to the disk and then renamed. Missing
    folders are made. An exception inside the `with` block removes the temporary file and leaves `path` as it was.

    Args:
        path: The file to write.
        shared: Whether other processes may write the same file at the same time. Each then has a temporary file of its
            own, so files of killed processes stay; otherwise the next write overwrites them.

    Yields:
        The temporary file's path, to be created by the caller.

    Example:
        >>> import tempfile
        >>> from model.files import atomic_write
        >>> path = Path(tempfile.mkdtemp()) / "runs" / "plan.json"
        >>> with atomic_write(path) as temporary:
        ...     _ = temporary.write_text("{}")
        >>> path.read_text()
        '{}'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = f".{secrets.token_hex(4)}" if shared else ""
    temporary = path.with_name(f".{path.name}{owner}{PARTIAL}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def _flush(path: Path) -> None:
    """Waits until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
