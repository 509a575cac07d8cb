"""The version that serves a project, for a process that has no model itself: the web server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from cachetools import LRUCache

from refcut_backend.model_store.serving_choice import MAX_PROJECTS, Choice, ServingChoice

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
