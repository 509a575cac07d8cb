"""What this web process has counted and timed, for Prometheus and for `/status`.

Each web process counts for itself and is a target of its own. Nothing here is labelled with what users write (labels,
tasks, projects): the number of series stays the same whatever they do.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from statistics import quantiles
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from refcut_backend import __version__
from refcut_backend.clicks.service import ANSWERED
from refcut_backend.errors import QueueUnavailableError
from refcut_backend.queue.queue_state import QueueState
from refcut_backend.training.status import TrainingStatus
from refcut_backend.versions.serving import ProjectVersions


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


BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
RECENT_CLICKS = 1000
CLICK_PATH = "/predict"

ReadQueueState = Callable[[], QueueState]


class Metrics:
    """Counts and times of one web process since its start.

    paths: those that the server has; requests to any other are counted together.
    """

    def __init__(
        self,
        versions: ProjectVersions,
        paths: Iterable[str],
        read_queue_state: ReadQueueState,
        training: TrainingStatus,
    ) -> None:
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
        self._phases = Histogram(
            "refcut_click_phase_seconds",
            "Where the time of a click goes; total is all of it",
            ["phase"],
            buckets=BUCKETS_S,
            registry=self._registry,
        )
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
        self._outcomes: defaultdict[str, int] = defaultdict(int)
        self._recent_ms: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT_CLICKS))

    def observe(self, facts: dict[str, Any]) -> None:
        """Takes the facts of one request, as its log line has them."""
        path = facts["path"] if facts["path"] in self._paths else "other"
        self._requests.labels(path, str(facts["status"])).inc()
        outcome = facts.get("outcome")
        if path != CLICK_PATH or outcome is None:
            return
        self._clicks.labels(outcome).inc()
        self._outcomes[outcome] += 1
        phases = facts.get("milliseconds")
        if phases is not None and outcome == ANSWERED:
            for phase, milliseconds in (phases | {"total": facts["total_ms"]}).items():
                self._phases.labels(phase).observe(milliseconds / 1000)
                self._recent_ms[phase].append(milliseconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def summary(self) -> dict[str, Any]:
        """Outcomes since the start, and medians and 95th percentiles of the latest 1000 answered clicks, ms a phase."""
        return {
            "uptime_s": round(time.monotonic() - self._started, 1),
            "clicks": dict(self._outcomes),
            "milliseconds": {
                phase: _percentiles(list(values)) for phase, values in list(self._recent_ms.items())
            },
        }


class _QueueCollector(Collector):
    """Asks Redis when Prometheus asks, so that all web processes say the same."""

    def __init__(self, read_queue_state: ReadQueueState) -> None:
        self._read = read_queue_state

    def collect(self) -> Iterable[GaugeMetricFamily]:
        try:
            state = self._read()
        except QueueUnavailableError:
            yield GaugeMetricFamily("refcut_redis_up", "Whether Redis answers", value=0)
            return
        yield GaugeMetricFamily("refcut_redis_up", "Whether Redis answers", value=1)
        yield GaugeMetricFamily(
            "refcut_queue_depth", "Clicks that no worker has taken yet", value=state.waiting
        )
        yield GaugeMetricFamily("refcut_workers_ready", "Workers that take clicks", value=state.ready_workers)
        yield GaugeMetricFamily(
            "refcut_training_workers_ready", "Workers that train", value=state.training_workers
        )

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: else Redis would be asked when the process starts."""
        return []


def _percentiles(values: list[float]) -> dict[str, float]:
    cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else [values[0]] * 19
    return {"p50": round(cuts[9], 1), "p95": round(cuts[18], 1), "clicks": len(values)}
