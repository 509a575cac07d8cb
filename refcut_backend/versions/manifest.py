"""What is written beside a version's weights: where it came from, how good it was, and the hashes of its files."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE, file_digest
from refcut_backend.errors import ModelStoreError

FORMAT = "refcut-manifest-1"
MANIFEST_FILE = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9_.]{1,80}-[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Manifest:
    """version, base_sha256, version_sha256, sizes: what the store itself holds a version to. published_at: UTC.

    said: what the trainer says of the version (parent, snapshot, settings, metrics, references, decision), JSON.
    """

    version: str
    project_id: int
    published_at: str
    base_sha256: str
    version_sha256: str
    sizes: dict[str, int]
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def is_approved(self) -> bool | None:
        """What the gate decided; None where no gate was asked."""
        decision = self.said.get("decision")
        return bool(decision.get("promote")) if isinstance(decision, dict) else None

    def to_json(self) -> bytes:
        return (json.dumps({"format": FORMAT, **vars(self)}, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Raises ModelStoreError when it is none."""
        try:
            said = json.loads(data)
            if said.pop("format") != FORMAT:
                raise ValueError("another format")
            manifest = cls(**said)
            check_name(manifest.version)
            return manifest
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelStoreError(f"a manifest cannot be read ({error})", hint="prune that version") from None


def check_name(version: str) -> str:
    """The name of a version, which becomes part of a path. Raises ModelStoreError for anything else."""
    if not _NAME.fullmatch(version):
        raise ModelStoreError(
            f"{version[:100]!r} is no name of a version", hint="`refcut models list` shows them"
        )
    return version


def name_of(said: dict[str, Any], project_id: int, version_sha256: str, digits: int) -> str:
    """What a version is called: its family, as in its parent's name, and digits of a hash of project and content."""
    family = str(said.get("parent", "")).rpartition("-")[0]
    digest = hashlib.sha256(f"{project_id} {version_sha256}".encode()).hexdigest()[:digits]
    return check_name(f"{re.sub('[^A-Za-z0-9_.]', '', family)[:40] or 'model'}-{digest}")


MAX_EARLIER = 50


@dataclass(frozen=True)
class Pointer:
    """version: None = the model that serves projects without versions of their own. earlier: oldest first."""

    version: str | None = None
    earlier: tuple[str | None, ...] = ()

    def promoted(self, version: str) -> Pointer:
        """As it is once a version serves; one that serves already changes nothing."""
        if version == self.version:
            return self
        return Pointer(version, (*self.earlier, self.version)[-MAX_EARLIER:])

    def rolled_back(self, is_there: frozenset[str]) -> Pointer | None:
        """As it is once the one before serves again. is_there: versions that have not been pruned.

        None when there is nothing to go back to.
        """
        left = list(self.earlier)
        while left:
            version = left.pop()
            if version is None or version in is_there:
                return Pointer(version, tuple(left))
        return None

    def to_json(self) -> bytes:
        return json.dumps({"version": self.version, "earlier": self.earlier}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Pointer:
        """Raises ValueError when it is none."""
        try:
            said = json.loads(data)
            version, earlier = said["version"], tuple(said["earlier"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a pointer: {error}") from None
        if not all(name is None or isinstance(name, str) for name in (version, *earlier)):
            raise ValueError("not a pointer: versions are names")
        return cls(version, earlier)


_HINT = "only folders written by `python -m model finetune` or `python -m model train` are taken"


def check_weights(folder: Path) -> tuple[str, str]:
    """SHA-256 of the base and of the version in a folder. Raises ModelStoreError when they are no such weights."""
    _metadata(folder / BASE_FILE)
    named = _metadata(folder / VERSION_FILE).get("base_sha256")
    base, version = file_digest(folder / BASE_FILE), file_digest(folder / VERSION_FILE)
    if named != base:
        raise ModelStoreError(f"{VERSION_FILE} was trained on another base", hint=_HINT)
    return base, version


def _metadata(path: Path) -> dict[str, str]:
    """Of a whole safetensors file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError:
        raise ModelStoreError(f"{path.name} is missing", hint=_HINT) from None
    except SafetensorError as error:
        raise ModelStoreError(f"{path.name} is no whole safetensors file ({error})", hint=_HINT) from None
