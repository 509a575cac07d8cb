"""The JSON files of the model store: a version's manifest, and the pointer to the version that serves a project.

Open this file to change what is stored about a version. Both are read again after an update: a key may be added, but none
renamed or removed.
"""

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
    """Describes a version: where it comes from, how good it was, and the hashes of its files.

    Attributes:
        version: Its name, unique in the store.
        project_id: The project that it was trained for; it never serves another.
        published_at: UTC, ISO 8601.
        base_sha256: Hash of the frozen encoder's file.
        version_sha256: Hash of the file with the trained weights.
        sizes: File name to size in bytes.
        metadata: What the training recorded, as JSON: parent, snapshot, settings, metrics, references, decision. The
            key in the file is `said`.
    """

    version: str
    project_id: int
    published_at: str
    base_sha256: str
    version_sha256: str
    sizes: dict[str, int]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def is_approved(self) -> bool | None:
        """Whether the comparison approved the version; None if there was no comparison."""
        decision = self.metadata.get("decision")
        return bool(decision.get("promote")) if isinstance(decision, dict) else None

    def fields(self) -> dict[str, Any]:
        """Return the values by the keys of the manifest file."""
        values = dict(vars(self))
        values["said"] = values.pop("metadata")
        return values

    def to_json(self) -> bytes:
        """Convert to the content of a manifest file."""
        return (json.dumps({"format": FORMAT, **self.fields()}, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest file.

        Raises:
            ModelStoreError: If the content is not a manifest.
        """
        try:
            values = json.loads(data)
            if values.pop("format") != FORMAT:
                raise ValueError("another format")
            values["metadata"] = values.pop("said", {})
            manifest = cls(**values)
            check_name(manifest.version)
            return manifest
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelStoreError(f"a manifest cannot be read ({error})", hint="prune that version") from None


def check_name(version: str) -> str:
    """Check the name of a version, which becomes part of a path.

    Returns:
        The name.

    Raises:
        ModelStoreError: If it is not the name of a version.
    """
    if not _NAME.fullmatch(version):
        raise ModelStoreError(
            f"{version[:100]!r} is not the name of a version", hint="`refcut models list` shows them"
        )
    return version


def name_of(metadata: dict[str, Any], project_id: int, version_sha256: str, digits: int) -> str:
    """Make a version's name: the family from its parent's name, and digits of a hash of project and content.

    Args:
        metadata: What the training recorded; `parent` names the version that it began from.
        project_id: The project that it was trained for.
        version_sha256: Hash of the file with the trained weights.
        digits: Number of hexadecimal digits.
    """
    family = str(metadata.get("parent", "")).rpartition("-")[0]
    digest = hashlib.sha256(f"{project_id} {version_sha256}".encode()).hexdigest()[:digits]
    return check_name(f"{re.sub('[^A-Za-z0-9_.]', '', family)[:40] or 'model'}-{digest}")


MAX_EARLIER = 50
"""How many versions a pointer remembers for rollbacks."""


@dataclass(frozen=True)
class Pointer:
    """Says which version serves a project.

    Attributes:
        version: Its name; None for the shared model, which serves projects without a version of their own.
        earlier: What served before, oldest first.
    """

    version: str | None = None
    earlier: tuple[str | None, ...] = ()

    def promoted(self, version: str) -> Pointer:
        """Return the pointer after a version begins to serve. A version that serves already changes nothing."""
        if version == self.version:
            return self
        return Pointer(version, (*self.earlier, self.version)[-MAX_EARLIER:])

    def rolled_back(self, is_there: frozenset[str]) -> Pointer | None:
        """Return the pointer after going back to what served before.

        Args:
            is_there: Names of the versions that have not been pruned; others are skipped.

        Returns:
            The new pointer; None if there is nothing to go back to.
        """
        left = list(self.earlier)
        while left:
            version = left.pop()
            if version is None or version in is_there:
                return Pointer(version, tuple(left))
        return None

    def to_json(self) -> bytes:
        """Convert to the content of a pointer file."""
        return json.dumps({"version": self.version, "earlier": self.earlier}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Pointer:
        """Read a pointer file.

        Raises:
            ValueError: If the content is not a pointer.
        """
        try:
            values = json.loads(data)
            version, earlier = values["version"], tuple(values["earlier"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a pointer: {error}") from None
        if not all(name is None or isinstance(name, str) for name in (version, *earlier)):
            raise ValueError("not a pointer: versions are names")
        return cls(version, earlier)


_HINT = "only folders written by `python -m model finetune` or `python -m model train` are taken"


def check_weights(folder: Path) -> tuple[str, str]:
    """Check that a folder holds weights which belong together. Nothing is unpickled.

    Returns:
        SHA-256 of the base file and of the version file.

    Raises:
        ModelStoreError: If a file is missing, is not a complete safetensors file, or belongs to another base.
    """
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
        raise ModelStoreError(
            f"{path.name} is not a complete safetensors file ({error})", hint=_HINT
        ) from None
