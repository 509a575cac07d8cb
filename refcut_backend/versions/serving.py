"""Which weights serve a project now: its current version, an earlier one where that is damaged, else the shared model."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cachetools import LRUCache

from model.checkpoints.version_folder import version_name
from refcut_backend.errors import ModelStoreError
from refcut_backend.settings import Settings
from refcut_backend.versions.manifest import Pointer
from refcut_backend.versions.store import ModelStore

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


FRESH_S = 1.0
STALE_S = 4.0
"""An answer is at most so old; between the two ages it is used while a newer one is fetched."""


class ProjectVersions(Protocol):
    """What Label Studio is told of the model."""

    @property
    def shared(self) -> str:
        """What serves projects without a version of their own."""

    @property
    def fallen_back(self) -> int:
        """How many projects are not served by the version that shall serve them."""

    def of(self, project_id: int) -> str:
        """What serves a project."""

    def all(self) -> list[str]:
        """All that serve, the shared one first."""


class OneVersion:
    """The same for all projects."""

    fallen_back = 0

    def __init__(self, version: str) -> None:
        self.shared = version

    def of(self, _project_id: int) -> str:
        return self.shared

    def all(self) -> list[str]:
        return [self.shared]


class StoreVersions:
    """As the store says, asked about a project at most once a second; a store that is far away holds up nobody."""

    def __init__(self, choice: ServingChoice, clock: Callable[[], float] = time.monotonic) -> None:
        self._choice = choice
        self._clock = clock
        self._lock = threading.Lock()
        self._known: LRUCache[int, tuple[float, Choice]] = LRUCache(MAX_PROJECTS)
        self._asking: set[int] = set()

    @property
    def shared(self) -> str:
        return self._choice.shared.version

    @property
    def fallen_back(self) -> int:
        return self._choice.fallen_back

    def of(self, project_id: int) -> str:
        with self._lock:
            known = self._known.get(project_id)
            age_s = self._clock() - known[0] if known else STALE_S
            begin = FRESH_S <= age_s < STALE_S and project_id not in self._asking
            if begin:
                self._asking.add(project_id)
        if known is None or age_s >= STALE_S:
            return self._ask(project_id).version
        if begin:
            threading.Thread(target=self._ask, args=(project_id,), name="model-version", daemon=True).start()
        return known[1].version

    def all(self) -> list[str]:
        with self._lock:
            known = [choice.version for _, choice in self._known.values()]
        return list(dict.fromkeys([self.shared, *known]))

    def _ask(self, project_id: int) -> Choice:
        at = self._clock()
        choice = self._choice.of(project_id)
        with self._lock:
            self._known[project_id] = at, choice
            self._asking.discard(project_id)
        return choice


def open_model_store(settings: Settings) -> ModelStore:
    """Raises ModelStoreError."""
    return ModelStore.open(settings.model_store_url, settings.state_dir.resolve() / "model-cache")


def open_project_versions(settings: Settings) -> StoreVersions:
    """Raises ModelStoreError or WeightsError."""
    return StoreVersions(ServingChoice(open_model_store(settings), settings.model_dir))
