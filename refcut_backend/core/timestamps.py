"""Label Studio's times as text that sorts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_FORM = "%Y-%m-%dT%H:%M:%S.%fZ"


def sortable(time: str) -> str:
    """A time as Label Studio writes it, in UTC and always with microseconds: later times sort later.

    Label Studio leaves the fraction out when it is zero, which plain text would sort behind. What is no time at all stays
    as it is.
    """
    try:
        read = datetime.fromisoformat(time)
    except ValueError:
        return time
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC).strftime(_FORM)


def earlier(time: str, seconds: float) -> str:
    """A sortable time, some seconds before. Raises ValueError for what `sortable` did not write."""
    return (datetime.strptime(time, _FORM) - timedelta(seconds=seconds)).strftime(_FORM)
