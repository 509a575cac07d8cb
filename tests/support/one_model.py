"""The engine's models for tests and benchmarks: one network for all projects."""

from __future__ import annotations

from collections.abc import Set

from model.predictor_config import PredictorSettings, serving_settings
from model.runtime.base import NetworkStages
from refcut_backend.inference.models import ServedModel


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

    def stop(self) -> None:
        """Nothing is loaded later."""
