"""Files below one folder or fsspec URL, each written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from refcut_backend.errors import ModelStoreError
from refcut_backend.versions.manifest import MANIFEST_FILE

PARTIAL = ".partial"
"""End of the names of files that are being written."""


class StoreFiles:
    """Names are relative to the root and use "/"."""

    def __init__(self, url: str) -> None:
        """Raises ModelStoreError for an address that this installation cannot open."""
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
        """The folder, when it lies on this machine."""
        return Path(self._root) if isinstance(self._fs, LocalFileSystem) else None

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        if self.local_root is not None:
            return (self.local_root / name).read_bytes()
        data: bytes = self._fs.cat_file(self._path(name))
        return data

    def size(self, name: str) -> int | None:
        """Bytes, None when the file is not there."""
        try:
            return int(self._fs.size(self._path(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file at once. Raises ModelStoreError."""
        self._guarded(name, lambda: self._write(name, data))

    def put(self, source: Path, name: str) -> None:
        """Copies a local file there. Raises ModelStoreError."""
        self._guarded(name, lambda: self._put(source, name))

    def get(self, name: str, target: Path) -> None:
        """Copies a file from there to a local place. Raises FileNotFoundError or ModelStoreError."""
        write_whole(target, lambda file: self._fs.get_file(self._path(name), file.name))

    def folders(self, name: str) -> list[str]:
        """Names of the folders in a folder."""
        return sorted(_last(entry) for entry in self._listed(name) if entry["type"] == "directory")

    def files(self, name: str) -> list[str]:
        """Names of the files in a folder."""
        return sorted(_last(entry) for entry in self._listed(name) if entry["type"] == "file")

    def age_s(self, name: str) -> float:
        """Seconds since a file was written. Raises FileNotFoundError."""
        return time.time() - float(self._fs.modified(self._path(name)).timestamp())

    def remove(self, name: str) -> None:
        """Removes a file or a whole folder, if it is there."""
        try:
            self._fs.rm(self._path(name), recursive=True)
        except FileNotFoundError:
            return

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _listed(self, name: str) -> list[dict[str, Any]]:
        try:
            entries: list[dict[str, Any]] = self._fs.ls(self._path(name), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return entries

    def _write(self, name: str, data: bytes) -> None:
        if self.local_root is not None:
            write_whole(self.local_root / name, lambda file: file.write(data))
        else:
            self._fs.pipe_file(self._path(name), data)

    def _put(self, source: Path, name: str) -> None:
        if self.local_root is not None:
            copy_whole(source, self.local_root / name)
        else:
            self._fs.put_file(str(source), self._path(name))

    def _guarded(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            raise ModelStoreError(
                f"the model store cannot be written ({_last({'name': name})}: {error.strerror or error})",
                hint="look at free space and rights of REFCUT_MODEL_STORE",
            ) from None


def write_whole(target: Path, fill: Callable[[BinaryIO], Any]) -> None:
    """A local file that is on the disk, complete, before it has its name. Raises OSError, and leaves nothing then."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def copy_whole(source: Path, target: Path) -> None:
    """A copy of a local file, as by `write_whole`."""

    def fill(file: BinaryIO) -> None:
        with source.open("rb") as opened:
            shutil.copyfileobj(opened, file, 2**20)

    write_whole(target, fill)


def _last(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]


HALF_FOLDER_S = 3600.0
"""A folder without a manifest is left alone so long: somebody may be writing it."""


def sweep(files: StoreFiles, needed_bases: Set[str], older_than_s: float) -> None:
    """Removes version folders without a manifest, halves of files, and bases other than those with these hashes."""
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
    """Whether there are files, and none of them is young."""
    try:
        return bool(names) and all(files.age_s(f"{folder}/{name}") >= older_than_s for name in names)
    except FileNotFoundError:
        return False
