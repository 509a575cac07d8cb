"""How long the answered clicks of the last hour took, from the click log: for the plot on the status page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import quantiles

from sqlalchemy import Engine, select

from refcut_backend.database.click_tables import ClickEvent

SPAN_S = 3600
BIN_S = 120
MOST_CLICKS = 5000
"""More clicks are not read: the page must cost a busy backend nothing. The plot then covers less than an hour."""


@dataclass(frozen=True)
class ClickTimes:
    """Durations of the answered clicks of some minutes.

    Attributes:
        at_s: Middle of these minutes, in seconds since 1970.
        p50_ms: Median of the milliseconds from request to answer.
        p95_ms: 95th percentile.
        clicks: Number of clicks.
    """

    at_s: float
    p50_ms: float
    p95_ms: float
    clicks: int


class ClickSpeed:
    """Reads the durations of clicks.

    Args:
        engine: The database.
        now: The time.
    """

    def __init__(self, engine: Engine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._now = now

    def last_hour(self) -> list[ClickTimes]:
        """Return the durations of the last hour in steps of `BIN_S`, oldest first; steps without a click are left out."""
        since = self._now() - timedelta(seconds=SPAN_S)
        # By the primary key, newest first, so that the query takes the same time however long the log is.
        query = (
            select(ClickEvent.answered_at, ClickEvent.milliseconds)
            .order_by(ClickEvent.id.desc())
            .limit(MOST_CLICKS)
        )
        bins: dict[int, list[float]] = {}
        with self._engine.connect() as connection:
            for answered_at, milliseconds in connection.execute(query):
                at = answered_at.replace(tzinfo=answered_at.tzinfo or UTC)
                if at >= since:
                    bins.setdefault(int(at.timestamp() // BIN_S), []).append(milliseconds)
        return [_times(number, values) for number, values in sorted(bins.items())]


def _times(number: int, values: list[float]) -> ClickTimes:
    p50, p95 = percentiles(values)
    return ClickTimes((number + 0.5) * BIN_S, p50, p95, len(values))


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile of at least one value, rounded to a tenth."""
    cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else [values[0]] * 19
    return round(cuts[9], 1), round(cuts[18], 1)
