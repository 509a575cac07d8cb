"""Decides when a project is trained automatically: after enough new annotations, or on a schedule, and not too often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from croniter import croniter

from refcut_backend.errors import ConfigError
from refcut_backend.settings import Settings
from refcut_backend.training.new_annotations import AnnotationCounts
from refcut_backend.training.runs import Outcome, Run

FAILURES_LOOKED_AT = 20
LONGEST_PAUSE_S = 86_400.0
"""Longest pause after failed trainings: a project is tried at least once per day."""


@dataclass(frozen=True)
class TrainingRules:
    """When trainings start automatically.

    Attributes:
        after_annotations: Number of new or changed annotations that starts a training; 0 for never.
        min_interval_s: Shortest time between the starts of two automatic trainings of a project.
        cron: Cron expression in local time, at which a project with new annotations is trained; empty for never.
    """

    after_annotations: int
    min_interval_s: float
    cron: str = ""

    @classmethod
    def read(cls, after_annotations: int, min_interval_s: float, cron: str) -> TrainingRules:
        """The rules with a checked cron expression; see the attributes.

        Raises:
            ConfigError: If the cron expression is invalid.
        """
        cron = cron.strip()
        if cron and not croniter.is_valid(cron):
            raise ConfigError(
                "REFCUT_TRAIN_CRON is not a valid cron expression",
                hint="such as '30 2 * * *' for every night at 2:30",
            )
        return cls(after_annotations, min_interval_s, cron)

    @classmethod
    def of(cls, settings: Settings) -> TrainingRules:
        """The rules of the settings. Raises ConfigError for an invalid cron expression."""
        return cls.read(settings.train_after_annotations, settings.train_min_interval_s, settings.train_cron)

    @property
    def is_automatic(self) -> bool:
        """Whether trainings ever start automatically."""
        return bool(self.after_annotations or self.cron)


@dataclass(frozen=True)
class ProjectStatus:
    """What decides about the next training of a project. Times are seconds since 1970.

    Attributes:
        new: Number of annotations that are new or changed since the last training.
        new_since: When the first of them came; None without one.
        started_at: When the last training was requested; None before the first.
        failures: Number of failed trainings in a row since then.
    """

    new: int
    new_since: float | None
    started_at: float | None
    failures: int = 0

    @classmethod
    def of(cls, counts: AnnotationCounts, latest: Sequence[Run]) -> ProjectStatus:
        """The status of a project.

        Args:
            counts: Its annotations.
            latest: Its latest runs, newest first; `FAILURES_LOOKED_AT` of them are enough.
        """
        outcomes = [run.outcome for run in latest]
        failures = next((n for n, o in enumerate(outcomes) if o is not Outcome.FAILED), len(outcomes))
        return cls(counts.new, counts.since, latest[0].requested_at if latest else None, failures)


def reason_to_train(rules: TrainingRules, status: ProjectStatus, now: float) -> str | None:
    """Decide whether a training shall start now.

    Args:
        rules: When trainings start.
        status: What is new in the project, and its last training.
        now: Seconds since 1970.

    Returns:
        "annotations" or "schedule", or None if no training shall start.
    """
    if status.new == 0 or now < earliest_start(rules, status):
        return None
    if rules.after_annotations and status.new >= rules.after_annotations:
        return "annotations"
    if rules.cron and status.new_since is not None:
        last_time = _last_time(rules.cron, now)
        if last_time >= status.new_since and last_time > (status.started_at or 0.0):
            return "schedule"
    return None


def earliest_start(rules: TrainingRules, status: ProjectStatus) -> float:
    """Return the earliest time of the next automatic training; each failure in a row doubles the pause."""
    if status.started_at is None:
        return float("-inf")
    pause_s = rules.min_interval_s
    if status.failures:
        pause_s = min(max(pause_s, 60.0) * 2.0 ** min(status.failures, 30), LONGEST_PAUSE_S)
    return status.started_at + max(pause_s, rules.min_interval_s)


def _last_time(cron: str, now: float) -> float:
    """The latest time of the schedule up to now, in seconds since 1970."""
    local = datetime.fromtimestamp(now).astimezone()
    before: datetime = croniter(cron, local).get_prev(datetime)
    return before.timestamp()
