"""The networks that answer clicks, by project."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

from model.predictor_config import PredictorSettings, serving_settings
from model.runtime.base import NetworkStages


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
