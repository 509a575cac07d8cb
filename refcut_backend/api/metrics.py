"""Counters and times of one web process, for Prometheus and for `/status`: add a metric here.

Each web process counts for itself and is a Prometheus target of its own. No metric is labelled with text that users write
(labels, tasks, projects), so the number of series is bounded.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from refcut_backend import __version__
from refcut_backend.clicks.service import ANSWERED
from refcut_backend.clicks.speed import percentiles
from refcut_backend.errors import QueueUnavailableError
from refcut_backend.queue.queue_state import QueueState
from refcut_backend.training.status import TrainingStatus
from refcut_backend.versions.serving import ProjectVersions

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
RECENT_CLICKS = 1000
CLICK_PATH = "/predict"
_REDIS_UP = "Whether Redis answers and can be written"

ReadQueueState = Callable[[], QueueState]


class Metrics:
    """Counts and times of one web process since its start."""

    def __init__(
        self,
        versions: ProjectVersions,
        paths: Iterable[str],
        read_queue_state: ReadQueueState,
        training: TrainingStatus,
    ) -> None:
        """Create the metrics in a registry of their own.

        Args:
            versions: Which model version serves which project.
            paths: The paths of the server's routes. Requests to any other path are counted as "other".
            read_queue_state: Reads the click queue when Prometheus scrapes. May raise QueueUnavailableError.
            training: Reads the trainings when Prometheus scrapes.
        """
        self.versions = versions
        self._paths = frozenset(paths)
        self._started = time.monotonic()
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "refcut_requests", "HTTP requests", ["path", "status"], registry=self._registry
        )
        self._clicks = Counter(
            "refcut_clicks",
            "Click requests by outcome: answered, or the reason why there is no mask",
            ["outcome"],
            registry=self._registry,
        )
        self._times = _ClickTimes(self._registry)
        build = Info("refcut_build", "Versions of the server and of the model", registry=self._registry)
        build.info({"version": __version__, "model_version": versions.shared})
        fallen_back = Gauge(
            "refcut_models_fallen_back",
            "Projects whose current version of the model is damaged, so that an earlier one serves",
            registry=self._registry,
        )
        fallen_back.set_function(lambda: versions.fallen_back)
        self._registry.register(_QueueCollector(read_queue_state))
        self._registry.register(TrainingCollector(training))

    def observe(self, fields: Mapping[str, Any]) -> None:
        """Count one request.

        Args:
            fields: The fields of the request's log line; see `RequestLine`. Clicks have `outcome` and `milliseconds`.
        """
        path = fields["path"] if fields["path"] in self._paths else "other"
        self._requests.labels(path, str(fields["status"])).inc()
        outcome = fields.get("outcome")
        if path != CLICK_PATH or outcome is None:
            return
        self._clicks.labels(outcome).inc()
        phases = fields.get("milliseconds")
        if phases is not None and outcome == ANSWERED:
            self._times.observe(phases | {"total": fields["total_ms"]})

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def summary(self) -> dict[str, Any]:
        """The part of `/status` that this process knows by itself.

        Returns:
            Uptime in seconds, clicks by outcome since the start, and for each phase the median and the 95th percentile in
            milliseconds over the latest 1000 answered clicks.
        """
        return {
            "uptime_s": round(time.monotonic() - self._started, 1),
            "clicks": self._clicks_by_outcome(),
            "milliseconds": self._times.percentiles(),
        }

    def _clicks_by_outcome(self) -> dict[str, int]:
        samples = [sample for metric in self._clicks.collect() for sample in metric.samples]
        return {s.labels["outcome"]: int(s.value) for s in samples if s.name == "refcut_clicks_total"}


class _ClickTimes:
    """Durations of the phases of a click: a histogram for Prometheus, and exact percentiles of the latest clicks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._histogram = Histogram(
            "refcut_click_phase_seconds",
            "Where the time of a click goes; total is all of it",
            ["phase"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._recent_ms: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT_CLICKS))

    def observe(self, phases: Mapping[str, float]) -> None:
        """One click: phase to milliseconds."""
        for phase, milliseconds in phases.items():
            self._histogram.labels(phase).observe(milliseconds / 1000)
            self._recent_ms[phase].append(milliseconds)

    def percentiles(self) -> dict[str, dict[str, float]]:
        return {phase: _percentiles(list(values)) for phase, values in list(self._recent_ms.items())}


def _percentiles(values: list[float]) -> dict[str, float]:
    p50, p95 = percentiles(values)
    return {"p50": p50, "p95": p95, "clicks": len(values)}


class TrainingCollector(Collector):
    """Reads the trainings from the database when Prometheus scrapes. Yields nothing while the database fails."""

    def __init__(self, training: TrainingStatus) -> None:
        self._training = training

    def collect(self) -> Iterable[Metric]:
        """Active trainings by stage, and ended trainings by outcome."""
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
        """Empty: otherwise the registry would read the database when the process starts."""
        return []


class _QueueCollector(Collector):
    """Reads Redis when Prometheus scrapes, so that all web processes report the same."""

    def __init__(self, read_queue_state: ReadQueueState) -> None:
        self._read = read_queue_state

    def collect(self) -> Iterable[GaugeMetricFamily]:
        try:
            state = self._read()
        except QueueUnavailableError:
            yield GaugeMetricFamily("refcut_redis_up", _REDIS_UP, value=0)
            return
        yield GaugeMetricFamily("refcut_redis_up", _REDIS_UP, value=1)
        yield GaugeMetricFamily(
            "refcut_queue_depth", "Clicks that no worker has taken yet", value=state.waiting
        )
        yield GaugeMetricFamily("refcut_workers_ready", "Workers that take clicks", value=state.ready_workers)
        yield GaugeMetricFamily(
            "refcut_training_workers_ready", "Workers that train", value=state.training_workers
        )
        if state.expected_wait_s is not None:
            yield GaugeMetricFamily(
                "refcut_expected_wait_seconds",
                "When a further click would be answered, by the times that the workers measure",
                value=state.expected_wait_s,
            )

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Empty: otherwise the registry would read Redis when the process starts."""
        return []
