"""Reads Label Studio's files from folders that this machine shares with it, if there are any."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from refcut_backend.errors import ImageError, TooLargeError
from refcut_backend.images.address import LabelStudioFile, local_file_key, upload_key


@dataclass(frozen=True)
class MountedFile:
    """A file's bytes and its stamp, which changes with the file. `data` is None if the file has the known stamp."""

    data: bytes | None
    stamp: str


@dataclass(frozen=True)
class MountedFolders:
    """Folders that are shared with Label Studio.

    Attributes:
        local_files: Label Studio's LOCAL_FILES_DOCUMENT_ROOT; None if it is not shared.
        uploads: Label Studio's media/upload; None if it is not shared.
    """

    local_files: Path | None = None
    uploads: Path | None = None

    def read(
        self, file: LabelStudioFile, max_bytes: int, known_stamp: str | None = None
    ) -> MountedFile | None:
        """Reads a file from its folder.

        Args:
            file: A file of Label Studio.
            max_bytes: Limit for the file's size.
            known_stamp: Stamp of an earlier read; the file is not read again if it still has it.

        Returns:
            The file; None if it is not in a shared folder, so that Label Studio must be asked.

        Raises:
            ImageError: The path leads out of the folder, for example by `..` or a symbolic link.
            TooLargeError: The file is larger than `max_bytes`.
        """
        for folder, key in ((self.local_files, local_file_key(file)), (self.uploads, upload_key(file))):
            if folder is not None and key is not None:
                path = _inside(folder, key)
                return None if path is None else _read(path, max_bytes, known_stamp)
        return None


def _inside(folder: Path, key: str) -> Path | None:
    if not key or key.startswith(("/", "\\")) or "\0" in key or ".." in key.replace("\\", "/").split("/"):
        raise _refused()
    try:
        path = (folder / key).resolve(strict=True)
        root = folder.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: symbolic links in a circle
        return None
    if not path.is_relative_to(root):
        raise _refused()
    return path


def _read(path: Path, max_bytes: int, known_stamp: str | None) -> MountedFile | None:
    try:
        # Refuses a link that was created since the check, and a pipe, which would block.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, handle)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _refused()
        stamp = f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
        if stamp == known_stamp:
            return MountedFile(None, stamp)
        with open(handle, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLargeError(
            f"the image file is larger than {max_bytes} bytes", hint="REFCUT_IMAGE_MAX_BYTES sets the limit"
        )
    return MountedFile(data, stamp)


def _refused() -> ImageError:
    return ImageError(
        "the image's path is not that of a file in the mounted folder",
        hint="a task may name only files inside that folder",
    )
