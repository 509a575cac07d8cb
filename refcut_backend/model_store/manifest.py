"""What is written beside a version's weights: where it came from, how good it was, and the hashes of its files."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

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
