"""When a project is trained by itself: enough that is new, or a time of day, and never too often."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from croniter import croniter

from refcut_backend.errors import ConfigError
from refcut_backend.settings import Settings

LONGEST_PAUSE_S = 86_400.0
"""A project whose trainings fail is tried at least once a day."""


@dataclass(frozen=True)
class TrainingRules:
    """after_annotations: so many new or changed ones begin a training; 0 = never by their number.

    min_interval_s: shortest time between the beginnings of two trainings of a project that nobody asked for.
    cron: times at which a training begins if anything is new, in this machine's local time; empty = never.
    """

    after_annotations: int
    min_interval_s: float
    cron: str = ""

    @classmethod
    def read(cls, after_annotations: int, min_interval_s: float, cron: str) -> TrainingRules:
        """Raises ConfigError for a cron string that is none."""
        cron = cron.strip()
        if cron and not croniter.is_valid(cron):
            raise ConfigError(
                "REFCUT_TRAIN_CRON is no cron string", hint="such as '30 2 * * *' for every night at 2:30"
            )
        return cls(after_annotations, min_interval_s, cron)

    @classmethod
    def of(cls, settings: Settings) -> TrainingRules:
        """As the settings say. Raises ConfigError."""
        return cls.read(settings.train_after_annotations, settings.train_min_interval_s, settings.train_cron)

    @property
    def is_automatic(self) -> bool:
        """Whether trainings ever begin without being asked for."""
        return bool(self.after_annotations or self.cron)


@dataclass(frozen=True)
class ProjectStatus:
    """How a project stands. Times are seconds since 1970.

    new: annotations that are new or changed since the last training. new_since: when the first of them came.
    begun_at: when the last training was asked for, None before the first. failures: how many failed in a row since.
    """

    new: int
    new_since: float | None
    started_at: float | None
    failures: int = 0


def reason_to_train(rules: TrainingRules, status: ProjectStatus, now: float) -> str | None:
    """Why a training should begin now ("annotations" or "schedule"); None when it should not."""
    if status.new == 0 or now < _earliest(rules, status):
        return None
    if rules.after_annotations and status.new >= rules.after_annotations:
        return "annotations"
    if rules.cron and status.new_since is not None:
        last_time = _last_time(rules.cron, now)
        if last_time >= status.new_since and last_time > (status.started_at or 0.0):
            return "schedule"
    return None


def _earliest(rules: TrainingRules, status: ProjectStatus) -> float:
    """Trainings that fail are tried again, ever more rarely."""
    if status.started_at is None:
        return float("-inf")
    pause_s = rules.min_interval_s
    if status.failures:
        pause_s = min(max(pause_s, 60.0) * 2.0 ** min(status.failures, 30), LONGEST_PAUSE_S)
    return status.started_at + max(pause_s, rules.min_interval_s)


def _last_time(cron: str, now: float) -> float:
    """The latest time of the cron string up to now."""
    local = datetime.fromtimestamp(now).astimezone()
    before: datetime = croniter(cron, local).get_prev(datetime)
    return before.timestamp()
