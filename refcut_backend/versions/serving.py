"""Chooses what serves a project: its current version, an earlier one if that is damaged, else the shared model.

Workers ask `ServingChoice` before a click; web processes ask `StoreVersions` what to tell Label Studio.
"""

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
from refcut_backend.versions.files import StoreSilentError
from refcut_backend.versions.manifest import Pointer
from refcut_backend.versions.store import ModelStore

log = logging.getLogger("refcut.models")

MAX_PROJECTS = 10_000
FRESH_S = 1.0
"""An answer of the store is used without asking again for this long."""
STALE_S = 4.0
"""Up to this age an answer is used while a newer one is fetched; an older one only if the store does not answer."""
WAIT_S = 0.5
"""Longest wait for the store. A click must not wait for a store that is silent: the last answer serves, or the shared
model."""
MAX_ASKING = 16
"""Projects that the store is asked about at once. A silent store must not collect threads."""


@dataclass(frozen=True)
class Choice:
    """The weights that serve a project.

    Attributes:
        version: Name, as Label Studio shows it.
        folder: Folder with the shared model; None for a version of the store.
    """

    version: str
    folder: Path | None = None


class ServingChoice:
    """Chooses what serves each project. Asks the store at every call; may be used from several threads.

    Args:
        store: The versions.
        shared_dir: Weights of projects without a version of their own.
        check: Raises ModelStoreError for a version that cannot serve; by default the store's own check.

    Raises:
        WeightsError: If `shared_dir` has no valid weights.
    """

    def __init__(
        self, store: ModelStore, shared_dir: Path, check: Callable[[str], object] | None = None
    ) -> None:
        self.shared = Choice(version_name(shared_dir), shared_dir)
        self._store = store
        self._check = check or store.check
        self._lock = threading.Lock()
        self._last: LRUCache[int, tuple[Pointer, Choice]] = LRUCache(MAX_PROJECTS)
        self._refused: dict[int, set[str]] = {}
        self._fallen_back: set[int] = set()

    @property
    def fallen_back(self) -> int:
        """Number of projects that are served by another version than the one that was promoted."""
        return len(self._fallen_back)

    def has_changed(self, project_id: int) -> bool:
        """Return whether the project's pointer has changed since `of` was called last."""
        with self._lock:
            last = self._last.get(project_id)
        try:
            return last is None or self._store.pointer(project_id) != last[0]
        except Exception:
            return False

    def of(self, project_id: int) -> Choice:
        """Choose what serves a project. Never raises: if the store cannot be read, the last choice stays."""
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
            log.error("the model store cannot be read", extra={"project": project_id, "problem": str(error)})
            return last[1] if last else self.shared

    def forget(self, project_id: int) -> None:
        """Forget what serves a project, so that `has_changed` is true: its version could not be fetched."""
        with self._lock:
            self._last.pop(project_id, None)

    def refuse(self, project_id: int, version: str) -> None:
        """Note that a version turned out to be unusable. An earlier one serves until the project's pointer changes."""
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
        except StoreSilentError:
            raise
        except (ModelStoreError, OSError) as error:
            log.error(
                "a version of the model is damaged",
                extra={"project": project_id, "version": version, "problem": str(error)},
            )
            return False


class ProjectVersions(Protocol):
    """Names of the versions that serve, for Label Studio."""

    @property
    def shared(self) -> str:
        """The shared model, which serves projects without a version of their own."""

    @property
    def fallen_back(self) -> int:
        """Number of projects that are served by another version than the one that was promoted."""

    def of(self, project_id: int) -> str:
        """Return the version that serves a project."""

    def all(self) -> list[str]:
        """List all versions that serve, the shared model first."""


class StoreVersions:
    """The versions that the store names, asked for at most once per second and project.

    The store is asked in the background, so that a slow one delays nobody for longer than `wait_s` seconds.

    Args:
        choice: Chooses what serves.
        clock: Monotonic seconds; ages of answers are measured with it.
        wait_s: Longest wait for an answer. It begins with the question, so a store that is silent is waited for once.
    """

    def __init__(
        self, choice: ServingChoice, clock: Callable[[], float] = time.monotonic, wait_s: float = WAIT_S
    ) -> None:
        self._choice = choice
        self._clock = clock
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._known: LRUCache[int, tuple[float, Choice]] = LRUCache(MAX_PROJECTS)
        self._asked_at: dict[int, float] = {}

    @property
    def shared(self) -> str:
        """The shared model, which serves projects without a version of their own."""
        return self._choice.shared.version

    @property
    def fallen_back(self) -> int:
        """Number of projects that are served by another version than the one that was promoted."""
        return self._choice.fallen_back

    def of(self, project_id: int) -> str:
        """Return the version that serves a project; at most `STALE_S` seconds old if the store answers in time."""
        with self._changed:
            known = self._known.get(project_id)
            age_s = self._clock() - known[0] if known else STALE_S
            if age_s >= FRESH_S:
                self._ask_in_background(project_id)
            if age_s >= STALE_S and project_id in self._asked_at:
                left_s = self._asked_at[project_id] + self._wait_s - time.monotonic()
                self._changed.wait_for(lambda: project_id not in self._asked_at, max(left_s, 0))
                known = self._known.get(project_id)
            return known[1].version if known else self.shared

    def all(self) -> list[str]:
        """List the versions that serve, as far as they have been asked for, the shared model first."""
        with self._changed:
            known = [choice.version for _, choice in self._known.values()]
        return list(dict.fromkeys([self.shared, *known]))

    def _ask_in_background(self, project_id: int) -> None:
        """Asks the store unless it has not answered the last question yet."""
        if project_id in self._asked_at or len(self._asked_at) >= MAX_ASKING:
            return
        self._asked_at[project_id] = time.monotonic()
        threading.Thread(target=self._ask, args=(project_id,), name="model-version", daemon=True).start()

    def _ask(self, project_id: int) -> None:
        at = self._clock()
        choice = self._choice.of(project_id)
        with self._changed:
            self._known[project_id] = at, choice
            del self._asked_at[project_id]
            self._changed.notify_all()


def open_model_store(settings: Settings) -> ModelStore:
    """Open the settings' model store.

    Raises:
        ModelStoreError: If its URL cannot be opened.
    """
    return ModelStore.open(settings.model_store_url, settings.state_dir.resolve() / "model-cache")


def open_project_versions(settings: Settings) -> StoreVersions:
    """Open the settings' model store to name the versions that serve.

    Raises:
        ModelStoreError: If the store's URL cannot be opened.
        WeightsError: If the shared model has no valid weights.
    """
    return StoreVersions(ServingChoice(open_model_store(settings), settings.model_dir))
