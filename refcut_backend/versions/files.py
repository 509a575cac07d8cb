"""The model store's files: below a folder or an fsspec URL such as `s3://`, each written completely or not at all.

Nothing here knows what the files mean, except `sweep`, which removes what a killed process left behind.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from model.files import PARTIAL, atomic_write
from refcut_backend.errors import ModelStoreError
from refcut_backend.system.deadlines import NoAnswerError, answer_within
from refcut_backend.versions.manifest import MANIFEST_FILE

HALF_FOLDER_S = 3600.0
"""A folder without a manifest is kept for this long: a process may still be writing it."""
ANSWERS_WITHIN_S = 10.0
"""Longest wait for a remote store, except while weights are copied."""

T = TypeVar("T")


class StoreSilentError(ModelStoreError):
    """A remote store did not answer in time, which says nothing about the files in it."""


class StoreFiles:
    """The files below one root. Names are relative to the root and use "/".

    Args:
        url: A folder, or a URL that fsspec can open. It need not exist yet.
        limit_s: Longest wait for a remote store in seconds. Every method except `get` and `put` keeps it and raises
            StoreSilentError afterwards; those two wait as long as bytes arrive.

    Raises:
        ModelStoreError: If this installation cannot open that kind of URL.
    """

    def __init__(self, url: str, limit_s: float = ANSWERS_WITHIN_S) -> None:
        self._limit_s = limit_s
        try:
            self._fs, root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ModelStoreError(
                f"REFCUT_MODEL_STORE cannot be opened ({error})",
                hint="name a folder, or install the package for that kind of address (s3://: s3fs)",
            ) from None
        self._root: str = root.rstrip("/")

    @property
    def local_root(self) -> Path | None:
        """The root folder if it lies on this machine, else None."""
        return Path(self._root) if isinstance(self._fs, LocalFileSystem) else None

    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        if self.local_root is not None:
            return (self.local_root / name).read_bytes()
        data: bytes = self._in_time(lambda: self._fs.cat_file(self._path(name)))
        return data

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if there is no such file."""
        try:
            return int(self._in_time(lambda: self._fs.size(self._path(name))))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file, or replace it.

        Raises:
            ModelStoreError: If the store cannot be written.
        """
        self._guarded(name, lambda: self._write(name, data))

    def put(self, source: Path, name: str) -> None:
        """Copy a local file into the store.

        Raises:
            ModelStoreError: If the store cannot be written.
        """
        self._guarded(name, lambda: self._put(source, name))

    def get(self, name: str, target: Path) -> None:
        """Copy a file of the store to a local path.

        Raises:
            FileNotFoundError: If there is no such file.
            OSError: If the target cannot be written.
        """
        with atomic_write(target, shared=True) as temporary:
            self._fs.get_file(self._path(name), str(temporary))

    def folders(self, name: str) -> list[str]:
        """List the names of the folders in a folder."""
        return sorted(_last(entry) for entry in self._listed(name) if entry["type"] == "directory")

    def files(self, name: str) -> list[str]:
        """List the names of the files in a folder."""
        return sorted(_last(entry) for entry in self._listed(name) if entry["type"] == "file")

    def age_s(self, name: str) -> float:
        """Return how many seconds ago a file was written.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        modified = self._in_time(lambda: self._fs.modified(self._path(name)))
        return time.time() - float(modified.timestamp())

    def remove(self, name: str) -> None:
        """Remove a file or a whole folder, if it is there."""
        try:
            self._in_time(lambda: self._fs.rm(self._path(name), recursive=True))
        except FileNotFoundError:
            return

    def _in_time(self, call: Callable[[], T]) -> T:
        """Makes a call of the file system. A folder of this machine needs no limit, and no thread."""
        if self.local_root is not None:
            return call()
        try:
            return answer_within(self._limit_s, call, "model-store")
        except NoAnswerError:
            raise StoreSilentError(
                f"the model store does not answer within {self._limit_s:g} s",
                hint="check REFCUT_MODEL_STORE and the network",
            ) from None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _listed(self, name: str) -> list[dict[str, Any]]:
        try:
            entries: list[dict[str, Any]] = self._in_time(lambda: self._fs.ls(self._path(name), detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return entries

    def _write(self, name: str, data: bytes) -> None:
        if self.local_root is not None:
            with atomic_write(self.local_root / name, shared=True) as temporary:
                temporary.write_bytes(data)
        else:
            self._in_time(lambda: self._fs.pipe_file(self._path(name), data))

    def _put(self, source: Path, name: str) -> None:
        if self.local_root is not None:
            copy_atomically(source, self.local_root / name)
        else:
            self._fs.put_file(str(source), self._path(name))

    def _guarded(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            raise ModelStoreError(
                f"the model store cannot be written ({_last({'name': name})}: {error.strerror or error})",
                hint="check free space and permissions of REFCUT_MODEL_STORE",
            ) from None


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a local file so that `target` is complete or does not change."""
    with atomic_write(target, shared=True) as temporary:
        shutil.copyfile(source, temporary)


def _last(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]


def sweep(files: StoreFiles, needed_bases: Set[str], older_than_s: float) -> None:
    """Remove version folders without a manifest, partly written files, and bases that no version needs.

    Args:
        files: The store.
        needed_bases: SHA-256 of the bases that stay.
        older_than_s: Only files of at least this age in seconds are removed.
    """
    for version in files.folders("versions"):
        folder = f"versions/{version}"
        found = files.files(folder)
        if MANIFEST_FILE not in found and _are_old(files, folder, found, older_than_s):
            files.remove(folder)
            continue
        _remove_old(files, folder, [name for name in found if name.endswith(PARTIAL)], older_than_s)
    unneeded = [
        name for name in files.files("bases") if name.removesuffix(".safetensors") not in needed_bases
    ]
    _remove_old(files, "bases", unneeded, older_than_s)


def _remove_old(files: StoreFiles, folder: str, names: Sequence[str], older_than_s: float) -> None:
    for name in names:
        if _are_old(files, folder, [name], older_than_s):
            files.remove(f"{folder}/{name}")


def _are_old(files: StoreFiles, folder: str, names: Sequence[str], older_than_s: float) -> bool:
    """Whether there are files and all of them are that old."""
    try:
        return bool(names) and all(files.age_s(f"{folder}/{name}") >= older_than_s for name in names)
    except FileNotFoundError:
        return False
