"""The model store: versions of the model, one folder each, and which of them serves each project.

    versions/NAME/manifest.json        written last: a folder without it is not a version
    versions/NAME/version.safetensors  what the training changed, and pictures beside it
    bases/SHA256.safetensors           the frozen encoder, once for all versions that share it
    projects/ID/current.json           which version serves, and which ones served before

Files are checked against the hashes in the manifest whenever they are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE, file_digest
from refcut_backend.errors import ModelStoreError
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.versions.files import (
    HALF_FOLDER_S,
    StoreFiles,
    StoreSilentError,
    copy_atomically,
    sweep,
)
from refcut_backend.versions.manifest import (
    MANIFEST_FILE,
    Manifest,
    Pointer,
    check_name,
    check_weights,
    name_of,
)

MIN_KEPT = 3
"""Pruning always leaves this many versions."""
_LIST_HINT = "`refcut models list` shows them"


class ModelStore:
    """The versions in one folder or behind one URL. Any number of processes and machines may use it at once.

    Args:
        files: The store's files.
        cache_dir: Local folder for copies of the versions that are used, if the store is not on this machine.
        now: The time that new versions get.
    """

    def __init__(
        self, files: StoreFiles, cache_dir: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._files = files
        self._cache_dir = cache_dir
        self._now = now
        self._known: dict[str, Manifest] = {}
        self._verified: dict[tuple[str, int, int], str] = {}

    @classmethod
    def open(cls, url: str, cache_dir: Path = Path("refcut-state/model-cache")) -> ModelStore:
        """Open the store in a folder or at an fsspec URL. It need not exist yet.

        Raises:
            ModelStoreError: If this installation cannot open that kind of URL.
        """
        return cls(StoreFiles(url), cache_dir)

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder of this machine, so that reading it costs next to nothing."""
        return self._files.local_root is not None

    def publish(self, project_id: int, run_dir: Path, metadata: dict[str, Any]) -> str:
        """Copy a trained folder's weights and pictures into the store as a new version. It does not serve yet.

        Publishing the same weights again changes nothing.

        Args:
            project_id: The project that the version was trained for.
            run_dir: Folder with the base, the version's weights and any pictures (.png).
            metadata: What the training recorded, as JSON (see `Manifest.metadata`).

        Returns:
            The version's name.

        Raises:
            ModelStoreError: If the folder has no valid weights, or the store cannot be written. The version then does not
                exist.
        """
        base, version = check_weights(run_dir)
        self.sweep()
        name, is_there = self._free_name(project_id, version, metadata)
        if is_there:
            return name
        if self._files.size(_base_path(base)) != (run_dir / BASE_FILE).stat().st_size:
            self._files.put(run_dir / BASE_FILE, _base_path(base))
        for path in (run_dir / VERSION_FILE, *sorted(run_dir.glob("*.png"))):
            self._files.put(path, f"versions/{name}/{path.name}")
        sizes = {file: (run_dir / file).stat().st_size for file in (BASE_FILE, VERSION_FILE)}
        at = self._now().isoformat(timespec="microseconds")
        complete = Manifest(name, project_id, at, base, version, sizes, metadata)
        self._files.write(f"versions/{name}/{MANIFEST_FILE}", complete.to_json())
        if self.is_local:
            self.local_folder(name)  # links the base now: readers may have no right to write
        return name

    def promote(self, project_id: int, version: str) -> None:
        """Make a version the one that serves its project.

        Raises:
            ModelStoreError: If the version belongs to another project, is damaged or does not exist.
        """
        if self.manifest(version).project_id != project_id:
            raise ModelStoreError(
                f"{version} is not a version of project {project_name(project_id)}", hint=_LIST_HINT
            )
        self.local_folder(version)
        self._point(project_id, self.pointer(project_id).promoted(version))

    def rollback(self, project_id: int) -> str | None:
        """Go back to what served before.

        Returns:
            The version's name; None for the shared model.

        Raises:
            ModelStoreError: If nothing served before.
        """
        pointer = self.pointer(project_id).rolled_back(frozenset(self.versions(project_id)))
        if pointer is None:
            raise ModelStoreError(
                f"nothing served project {project_name(project_id)} before",
                hint="`refcut models promote` names a version",
            )
        self._point(project_id, pointer)
        return pointer.version

    def current(self, project_id: int) -> str | None:
        """Return the version that is to serve a project; None for the shared model.

        Raises:
            ModelStoreError: If the pointer cannot be read.
        """
        return self.pointer(project_id).version

    def pointer(self, project_id: int) -> Pointer:
        """Read what serves a project and what served before.

        Raises:
            ModelStoreError: If the pointer cannot be read.
        """
        try:
            return Pointer.from_json(self._files.read(_pointer_path(project_id)))
        except FileNotFoundError:
            return Pointer()
        except (OSError, ValueError) as error:
            raise ModelStoreError(
                f"what serves project {project_name(project_id)} cannot be read ({error})",
                hint="`refcut models promote` writes it again",
            ) from None

    def serving(self) -> list[str]:
        """List the versions that serve a project, those that were published last first.

        Pointers and manifests that cannot be read are left out.

        Raises:
            StoreSilentError: If a remote store does not answer.
        """
        found: dict[str, str] = {}
        for name in self._files.folders("projects"):
            try:
                version = self.pointer(int(name)).version
                if version is not None:
                    found[version] = self.manifest(version).published_at
            except StoreSilentError:
                raise
            except (ModelStoreError, ValueError):
                continue
        return sorted(found, key=lambda version: found[version], reverse=True)

    def versions(self, project_id: int) -> list[str]:
        """List all versions of a project, newest first."""
        found = [m for m in self._manifests() if m.project_id == project_id]
        return [m.version for m in sorted(found, key=lambda m: m.published_at, reverse=True)]

    def manifest(self, version: str) -> Manifest:
        """Read a version's manifest.

        Raises:
            ModelStoreError: If there is no such version.
        """
        check_name(version)
        if version not in self._known:
            try:
                self._known[version] = Manifest.from_json(
                    self._files.read(f"versions/{version}/{MANIFEST_FILE}")
                )
            except FileNotFoundError:
                raise ModelStoreError(f"there is no version {version}", hint=_LIST_HINT) from None
        return self._known[version]

    def check(self, version: str) -> None:
        """Check that a version is complete: by hashes in a local store, by file sizes in a remote one.

        Raises:
            ModelStoreError: If it is damaged or does not exist.
        """
        if self.is_local:
            self.local_folder(version)
            return
        manifest = self.manifest(version)
        for name, path in _paths(manifest).items():
            if self._files.size(path) != manifest.sizes[name]:
                raise _damaged(version, name)

    def local_folder(self, version: str) -> Path:
        """Return a local folder with base and version, checked by their hashes. A remote version is downloaded once.

        Raises:
            ModelStoreError: If the version is damaged or does not exist.
        """
        manifest = self.manifest(version)
        root = self._files.local_root or self._cache_dir
        wanted = {BASE_FILE: manifest.base_sha256, VERSION_FILE: manifest.version_sha256}
        for name, path in _paths(manifest).items():
            if not self._files.local_root and not self._is(root / path, wanted[name]):
                self._download(path, root / path, version)
            if not self._is(root / path, wanted[name]):
                raise _damaged(version, name)
        folder = root / "versions" / version
        if not self._is(folder / BASE_FILE, manifest.base_sha256):
            _link(root / _base_path(manifest.base_sha256), folder / BASE_FILE)
        return folder

    def save_pictures(self, version: str, folder: Path) -> list[Path]:
        """Copy the pictures of a version into a local folder and return their paths."""
        names = self.pictures(version)
        for name in names:
            self._files.get(f"versions/{version}/{name}", folder / name)
        return [folder / name for name in names]

    def pictures(self, version: str) -> list[str]:
        """List the file names of a version's pictures."""
        files = self._files.files(f"versions/{self.manifest(version).version}")
        return [name for name in files if name.endswith(".png")]

    def picture(self, project_id: int, version: str, name: str) -> bytes:
        """Read a picture of a version.

        Raises:
            ModelStoreError: If the version is none of the project's, or has no such picture.
        """
        if self.manifest(version).project_id != project_id or name not in self.pictures(version):
            raise ModelStoreError(f"{version} has no picture of that name", hint=_LIST_HINT)
        return self._files.read(f"versions/{version}/{name}")

    def lasting(self, project_id: int, keep: int = MIN_KEPT) -> list[str]:
        """List the versions that pruning leaves.

        These are the newest `keep` versions (at least `MIN_KEPT`), the one that serves, and the one that a rollback would
        bring back.
        """
        versions = self.versions(project_id)
        pointer = self.pointer(project_id)
        before = pointer.rolled_back(frozenset(versions))
        remaining = {*versions[: max(keep, MIN_KEPT)], pointer.version, before.version if before else None}
        return [version for version in versions if version in remaining]

    def prune(self, project_id: int, keep: int = MIN_KEPT) -> list[str]:
        """Remove a project's versions except the lasting ones, and return their names."""
        lasting = self.lasting(project_id, keep)
        removed = [version for version in self.versions(project_id) if version not in lasting]
        for version in removed:
            self._files.remove(f"versions/{version}/{MANIFEST_FILE}")
            self._files.remove(f"versions/{version}")
            self._known.pop(version, None)
        self.sweep()
        return removed

    def sweep(self, older_than_s: float = HALF_FOLDER_S) -> None:
        """Remove what was left partly written for that many seconds, and bases that no version needs."""
        sweep(self._files, {manifest.base_sha256 for manifest in self._manifests()}, older_than_s)

    def _free_name(self, project_id: int, sha256: str, metadata: dict[str, Any]) -> tuple[str, bool]:
        """A name for this content, and whether it is published under that name already."""
        for digits in (8, 16, 64):
            name = name_of(metadata, project_id, sha256, digits)
            if self._files.size(f"versions/{name}/{MANIFEST_FILE}") is None:
                return name, False
            manifest = self.manifest(name)
            if (manifest.project_id, manifest.version_sha256) == (project_id, sha256):
                return name, True
        raise AssertionError("two contents of one SHA-256")

    def _manifests(self) -> list[Manifest]:
        """The manifests of all complete versions."""
        found = []
        for name in self._files.folders("versions"):
            try:
                found.append(self.manifest(name))
            except StoreSilentError:
                raise
            except ModelStoreError:
                continue
        return found

    def _point(self, project_id: int, pointer: Pointer) -> None:
        self._files.write(_pointer_path(project_id), pointer.to_json())

    def _is(self, path: Path, sha256: str) -> bool:
        """Whether a file has this hash. The hash is computed once as long as size and time of the file stay the same."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        key = (str(path), status.st_mtime_ns, status.st_size)
        if key not in self._verified:
            self._verified[key] = file_digest(path)
        return self._verified[key] == sha256

    def _download(self, path: str, target: Path, version: str) -> None:
        try:
            self._files.get(path, target)
        except FileNotFoundError:
            raise _damaged(version, Path(path).name) from None


def _paths(manifest: Manifest) -> dict[str, str]:
    """Names of a version's two files in the store."""
    return {
        BASE_FILE: _base_path(manifest.base_sha256),
        VERSION_FILE: f"versions/{manifest.version}/{VERSION_FILE}",
    }


def _base_path(sha256: str) -> str:
    return f"bases/{sha256}.safetensors"


def _pointer_path(project_id: int) -> str:
    return f"projects/{int(project_id)}/current.json"


def _link(base: Path, path: Path) -> None:
    """Puts the base where `model.checkpoints.weights` looks for it; as a hard link if the file system has them."""
    path.unlink(missing_ok=True)
    try:
        os.link(base, path)
    except FileExistsError:
        return
    except OSError:
        copy_atomically(base, path)


def _damaged(version: str, name: str) -> ModelStoreError:
    return ModelStoreError(
        f"{name} of {version} is damaged or missing", hint="`refcut models rollback`, or restore the file"
    )
