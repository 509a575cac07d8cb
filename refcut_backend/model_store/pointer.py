"""Which version serves a project, and which ones did before: what `current.json` of a project says."""

from __future__ import annotations

import json
from dataclasses import dataclass

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
