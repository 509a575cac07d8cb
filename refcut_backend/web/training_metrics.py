"""Trainings for Prometheus: all web processes read them from the database and say the same."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.training.status import TrainingStatus


class TrainingCollector(Collector):
    """Asks the database when Prometheus asks; says nothing while that fails."""

    def __init__(self, training: TrainingStatus) -> None:
        self._training = training

    def collect(self) -> Iterable[Metric]:
        try:
            stages, outcomes = self._training.stages(), self._training.outcomes()
        except SQLAlchemyError:
            return
        active = GaugeMetricFamily("refcut_trainings", "Trainings under way by stage", labels=["stage"])
        for stage, count in stages.items():
            active.add_metric([stage.value], count)
        ended = CounterMetricFamily(
            "refcut_trainings_ended", "Trainings that ended, by outcome", labels=["outcome"]
        )
        for outcome, count in outcomes.items():
            ended.add_metric([outcome.value], count)
        yield active
        yield ended

    def describe(self) -> Iterable[Metric]:
        """Nothing: else the database would be asked when the process starts."""
        return []
