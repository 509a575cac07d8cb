"""Each project's own network, loaded and exchanged behind the clicks' back.

A thread looks once a second whether another version shall serve one of the projects that were clicked in, and loads it
beside the one that serves. A click only ever picks up what is ready.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Protocol

from model.errors import ModelError
from model.predictor_config import PredictorSettings, serving_settings
from model.runtime.base import NetworkStages
from refcut_backend.errors import ModelStoreError
from refcut_backend.versions.serving import ServingChoice


@dataclass(frozen=True)
class ServedModel:
    """version: as Label Studio shows it. settings: how the network is used."""

    version: str
    network: NetworkStages
    settings: PredictorSettings

    @property
    def computes_as(self) -> tuple[str, str]:
        """What has the same one is computed from the same weights in the same way."""
        return f"{self.version}-{type(self.network).__name__}", repr(self.settings)


class ServedModels(Protocol):
    """Networks that are loaded. To be asked from one thread, at every click."""

    def of(self, project_id: int) -> ServedModel:
        """The network for a project's next click."""

    def loaded(self) -> Set[tuple[str, str]]:
        """`computes_as` of all that are kept; nothing may hold on to any other."""


class OneModel:
    """The same network for all projects."""

    def __init__(
        self, network: NetworkStages, version: str, settings: PredictorSettings | None = None
    ) -> None:
        self.model = ServedModel(version, network, settings or serving_settings(network.config))

    def of(self, _project_id: int) -> ServedModel:
        return self.model

    def loaded(self) -> Set[tuple[str, str]]:
        return {self.model.computes_as}


log = logging.getLogger("refcut.worker")

LOOK_EVERY_S = 1.0
FIRST_WAIT_S = 4.0
"""A project's first click waits so long for its version; then the shared model answers until it is there."""
MAX_PROJECTS = 50


class ProjectModels:
    """Keeps the shared model and the versions of the `limit` projects that were asked for last.

    load: version to network; raises ModelError, ModelStoreError, OSError, RuntimeError or MemoryError.
    """

    def __init__(
        self,
        choice: ServingChoice,
        shared: ServedModel,
        load: Callable[[str], ServedModel],
        limit: int,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        self.shared = shared
        self._choice = choice
        self._load = load
        self._limit = limit
        self._first_wait_s = first_wait_s
        self._serving: OrderedDict[int, ServedModel | None] = OrderedDict()
        self._coming: set[int] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def of(self, project_id: int) -> ServedModel:
        """The project's version as soon as it is loaded; the one before it until then."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="model-versions", daemon=True)
                self._thread.start()
            if project_id not in self._serving:
                self._serving[project_id] = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._serving.get(project_id) is not None, self._first_wait_s)
            model = self._serving.get(project_id)
            if project_id in self._serving:
                self._serving.move_to_end(project_id)
            self._trim()
            return model or self.shared

    def loaded(self) -> Set[tuple[str, str]]:
        with self._changed:
            kept = [model for model in self._serving.values() if model is not None]
            return {model.computes_as for model in (self.shared, *kept)}

    def stop(self) -> None:
        """Looks no further."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._stopping:
            with self._changed:
                projects = [project for project in reversed(self._serving) if project not in self._coming]
            for project_id in projects:
                if self._serving.get(project_id) is None or self._choice.has_changed(project_id):
                    self._begin(project_id)
            with self._changed:
                if not self._stopping and not self._has_new_project():
                    self._changed.wait(LOOK_EVERY_S)

    def _has_new_project(self) -> bool:
        return any(m is None and project not in self._coming for project, m in self._serving.items())

    def _begin(self, project_id: int) -> None:
        """A thread for each: one project's download or conversion holds up no other."""
        with self._changed:
            self._coming.add(project_id)
        name = f"model-of-{project_id}"
        threading.Thread(target=self._bring_up_to_date, args=(project_id,), name=name, daemon=True).start()

    def _bring_up_to_date(self, project_id: int) -> None:
        try:
            model = self._chosen(project_id)
        except Exception:
            log.exception("a project's model cannot be loaded", extra={"project": project_id})
            model = None
        with self._changed:
            self._coming.discard(project_id)
            if project_id in self._serving:
                before, after = self._serving[project_id], model or self._serving[project_id] or self.shared
                self._serving[project_id] = after
                if before is not after:
                    log.info("model version", extra={"project": project_id, "version": after.version})
            self._changed.notify_all()

    def _chosen(self, project_id: int) -> ServedModel:
        """The version that shall serve; where it cannot be loaded, the best one that can."""
        while True:
            choice = self._choice.of(project_id)
            with self._changed:
                serving = self._serving.get(project_id)
            for model in (self.shared, serving):
                if model is not None and model.version == choice.version:
                    return model
            try:
                return self._load(choice.version)
            except (ModelError, ModelStoreError, OSError, RuntimeError, MemoryError) as error:
                log.error(
                    "a version of the model cannot be loaded",
                    extra={"project": project_id, "version": choice.version, "problem": str(error)},
                )
                self._choice.refuse(project_id, choice.version)

    def _trim(self) -> None:
        """Forgets the projects that were clicked in longest ago."""
        own = [p for p, m in self._serving.items() if m is not None and m is not self.shared]
        for project_id in own[: max(len(own) - self._limit, 0)]:
            del self._serving[project_id]
        while len(self._serving) > MAX_PROJECTS:
            self._serving.popitem(last=False)
