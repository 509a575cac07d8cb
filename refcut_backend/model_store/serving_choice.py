"""Which weights serve a project now: its current version, an earlier one where that is damaged, else the shared model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cachetools import LRUCache

from model.checkpoints.version_folder import version_name
from refcut_backend.errors import ModelStoreError
from refcut_backend.model_store.pointer import Pointer
from refcut_backend.model_store.store import ModelStore

log = logging.getLogger("refcut.models")

MAX_PROJECTS = 10_000


@dataclass(frozen=True)
class Choice:
    """version: as Label Studio shows it. folder: its weights; None for a version of the store."""

    version: str
    folder: Path | None = None


class ServingChoice:
    """Asks the store every time; whoever asks often remembers the answer. May be used from several threads.

    check: raises ModelStoreError for a version that cannot serve.
    """

    def __init__(
        self, store: ModelStore, shared_dir: Path, check: Callable[[str], object] | None = None
    ) -> None:
        """shared_dir: the weights of projects without versions of their own. Raises WeightsError."""
        self.shared = Choice(version_name(shared_dir), shared_dir)
        self._store = store
        self._check = check or store.check
        self._lock = threading.Lock()
        self._last: LRUCache[int, tuple[Pointer, Choice]] = LRUCache(MAX_PROJECTS)
        self._refused: dict[int, set[str]] = {}
        self._fallen_back: set[int] = set()

    @property
    def fallen_back(self) -> int:
        """How many projects are served by another version than the one that shall serve."""
        return len(self._fallen_back)

    def has_changed(self, project_id: int) -> bool:
        """Whether another version shall serve than when `of` was asked last."""
        with self._lock:
            last = self._last.get(project_id)
        try:
            return last is None or self._store.pointer(project_id) != last[0]
        except Exception:
            return False

    def of(self, project_id: int) -> Choice:
        """What serves a project. Never raises: a store that cannot be asked changes nothing."""
        with self._lock:
            last = self._last.get(project_id)
        try:
            pointer = self._store.pointer(project_id)
            if last is None or last[0] != pointer:
                last = pointer, self._choose(project_id, pointer)
                with self._lock:
                    self._last[project_id] = last
                    self._refused.pop(project_id, None)
            return last[1]
        except Exception as error:
            log.error("the model store cannot be asked", extra={"project": project_id, "problem": str(error)})
            return last[1] if last else self.shared

    def refuse(self, project_id: int, version: str) -> None:
        """Notes that a version turned out not to serve; an earlier one is chosen until the project's pointer changes."""
        with self._lock:
            pointer, _ = self._last[project_id]
            self._refused.setdefault(project_id, set()).add(version)
        chosen = self._choose(project_id, pointer, frozenset(self._refused[project_id]))
        with self._lock:
            self._last[project_id] = pointer, chosen

    def _choose(self, project_id: int, pointer: Pointer, refused: frozenset[str] = frozenset()) -> Choice:
        choice = self.shared
        for version in (pointer.version, *reversed(pointer.earlier)):
            if version is None:
                break
            if version not in refused and self._is_good(project_id, version):
                choice = Choice(version)
                break
        wanted = pointer.version or self.shared.version
        if choice.version == wanted:
            self._fallen_back.discard(project_id)
        else:
            self._fallen_back.add(project_id)
            log.error(
                "a version of the model cannot serve, an earlier one does",
                extra={"project": project_id, "version": wanted, "instead": choice.version},
            )
        return choice

    def _is_good(self, project_id: int, version: str) -> bool:
        try:
            self._check(version)
            return True
        except (ModelStoreError, OSError) as error:
            log.error(
                "a version of the model is damaged",
                extra={"project": project_id, "version": version, "problem": str(error)},
            )
            return False
