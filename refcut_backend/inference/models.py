"""The network of each project, loaded and replaced in the background.

Once per second a thread checks whether another version shall serve one of the projects with recent clicks, and loads it
while the one before still serves. A click never waits for a change of versions, except for a project's first click, and
that one never waits for a conversion.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Protocol

from model.errors import ModelError
from model.predictor_config import PredictorSettings
from model.runtime.base import NetworkStages
from refcut_backend.errors import ModelStoreError
from refcut_backend.versions.files import StoreSilentError
from refcut_backend.versions.serving import ServingChoice


@dataclass(frozen=True)
class ServedModel:
    """A network that is loaded.

    Attributes:
        version: The version as Label Studio shows it.
        network: The network on its device and runtime.
        settings: How the predictor uses the network.
    """

    version: str
    network: NetworkStages
    settings: PredictorSettings

    @property
    def computes_as(self) -> tuple[str, str]:
        """Key of everything this model computes: equal keys mean equal weights, runtime and settings."""
        return f"{self.version}-{type(self.network).__name__}", repr(self.settings)


class ServedModels(Protocol):
    """The loaded networks. Called by one thread, at every click."""

    def of(self, project_id: int) -> ServedModel:
        """The network for a project's next click."""

    def loaded(self) -> Set[tuple[str, str]]:
        """`computes_as` of all loaded models; features of other models must be dropped."""

    def stop(self) -> None:
        """Load nothing more, before the process ends."""


log = logging.getLogger("refcut.worker")

LOOK_EVERY_S = 1.0
FIRST_WAIT_S = 4.0
"""Longest wait of a project's first click for its version. After it, and at once if the version has to be converted, the
shared model answers until the version is loaded."""
RETRY_S = 10.0
"""Seconds until a version whose download failed is fetched again."""
STOP_LIMIT_S = 5.0
MAX_PROJECTS = 50


class ProjectModels:
    """The shared model, and the versions of the projects with the most recent clicks."""

    def __init__(
        self,
        choice: ServingChoice,
        shared: ServedModel,
        load: Callable[[str, Callable[[], None]], ServedModel],
        limit: int,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        """Prepare the models; the thread starts at the first click.

        Args:
            choice: Says which version shall serve a project.
            shared: The model of all other projects.
            load: Loads a version; raises ModelError, ModelStoreError, OSError, RuntimeError or MemoryError. It calls its
                second argument before it begins something that no click should wait for.
            limit: Number of versions to keep loaded.
            first_wait_s: Seconds that a project's first click waits for its version.
        """
        self.shared = shared
        self._choice = choice
        self._load = load
        self._limit = limit
        self._first_wait_s = first_wait_s
        self._serving: OrderedDict[int, ServedModel | None] = OrderedDict()
        self._loading: dict[int, threading.Thread] = {}
        self._slow: set[int] = set()
        self._retry_at: dict[int, float] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def of(self, project_id: int) -> ServedModel:
        """The model of a project's next click: its version if that is loaded, otherwise the one before."""
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._look, name="model-versions", daemon=True)
                thread.start()
                self._thread = thread
            if project_id not in self._serving:
                self._serving[project_id] = None
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._serving.get(project_id) is not None or project_id in self._slow,
                    self._first_wait_s,
                )
            model = self._serving.get(project_id)
            if project_id in self._serving:
                self._serving.move_to_end(project_id)
            self._trim()
            return model or self.shared

    def loaded(self) -> Set[tuple[str, str]]:
        """Keys of the shared model and of all loaded versions."""
        with self._changed:
            versions = [model for model in self._serving.values() if model is not None]
            return {model.computes_as for model in (self.shared, *versions)}

    def stop(self) -> None:
        """End the threads. A store that does not answer is not waited for.

        A process that ends while a thread is inside OpenVINO is aborted (SIGABRT), so what is being loaded is waited for.
        """
        ends = time.monotonic() + STOP_LIMIT_S
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            threads = [self._thread, *self._loading.values()]
        for thread in threads:
            if thread is not None:
                thread.join(max(ends - time.monotonic(), 0.0))

    def _look(self) -> None:
        while not self._stopping:
            with self._changed:
                projects = [project for project in reversed(self._serving) if project not in self._loading]
            for project_id in projects:
                if self._stopping:
                    return
                if self._is_due(project_id):
                    self._begin(project_id)
            with self._changed:
                if not self._stopping and not self._has_new_project():
                    self._changed.wait(LOOK_EVERY_S)

    def _is_due(self, project_id: int) -> bool:
        """Whether a project may need another model than the one that serves it."""
        with self._changed:
            if project_id not in self._serving:  # unloaded since the projects were listed
                return False
            if self._serving[project_id] is None:
                return True
        is_early = time.monotonic() < self._retry_at.get(project_id, 0.0)
        return not is_early and self._choice.has_changed(project_id)

    def _has_new_project(self) -> bool:
        return any(m is None and project not in self._loading for project, m in self._serving.items())

    def _begin(self, project_id: int) -> None:
        """Loads a version in a thread of its own, so that one project's download does not delay another."""
        name = f"model-of-{project_id}"
        thread = threading.Thread(target=self._bring_up_to_date, args=(project_id,), name=name, daemon=True)
        with self._changed:
            if self._stopping:
                return
            self._loading[project_id] = thread
            thread.start()

    def _bring_up_to_date(self, project_id: int) -> None:
        try:
            model = self._chosen(project_id)
        except Exception:
            log.exception("a project's model cannot be loaded", extra={"project": project_id})
            model = None
            self._choice.forget(project_id)
            self._retry_at[project_id] = time.monotonic() + RETRY_S
        with self._changed:
            del self._loading[project_id]
            self._slow.discard(project_id)
            if project_id in self._serving:
                before, after = self._serving[project_id], model or self._serving[project_id] or self.shared
                self._serving[project_id] = after
                if before is not after:
                    log.info("model version", extra={"project": project_id, "version": after.version})
            self._changed.notify_all()

    def _chosen(self, project_id: int) -> ServedModel:
        """The version that shall serve; if it cannot be loaded, the next best one that can."""
        while True:
            choice = self._choice.of(project_id)
            with self._changed:
                serving = self._serving.get(project_id)
            for model in (self.shared, serving):
                if model is not None and model.version == choice.version:
                    return model
            try:
                return self._load(choice.version, lambda: self._wait_no_longer(project_id))
            except StoreSilentError:
                raise
            except (ModelError, ModelStoreError, OSError, RuntimeError, MemoryError) as error:
                log.error(
                    "a version of the model cannot be loaded",
                    extra={"project": project_id, "version": choice.version, "problem": str(error)},
                )
                self._choice.refuse(project_id, choice.version)

    def _wait_no_longer(self, project_id: int) -> None:
        with self._changed:
            self._slow.add(project_id)
            self._changed.notify_all()

    def _trim(self) -> None:
        """Unloads the versions of the projects with the oldest clicks."""
        own = [p for p, m in self._serving.items() if m is not None and m is not self.shared]
        for project_id in own[: max(len(own) - self._limit, 0)]:
            del self._serving[project_id]
        while len(self._serving) > MAX_PROJECTS:
            self._serving.popitem(last=False)
