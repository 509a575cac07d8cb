"""New clicks for pages that are open, within half a second, by server-sent events.

    request line  -> click_of      -> RecentClicks     every click of every web process
    /status/events -> EventStreams -> browser          "clicks" first, then "click" for each new one, and "state"

All streams share what one of them has read, so the number of open pages costs neither Redis nor clicks anything.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from refcut_backend.api.metrics import CLICK_PATH
from refcut_backend.clicks.service import EMPTY_CONTEXT
from refcut_backend.errors import all_reasons
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.logs import without_secrets
from refcut_backend.queue.queue_state import ANSWERED
from refcut_backend.queue.recent_clicks import ClickLists, RecentClick

PROBLEM_LENGTH = 500
MAX_STREAMS = 30
LOOK_EVERY_S = 0.5
STATE_EVERY_S = 3.0
STREAM_S = 600.0
"""A stream ends after this time and the browser opens another, which checks its right again."""
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def click_of(fields: Mapping[str, Any]) -> RecentClick | None:
    """Reads a click from the fields of its log line.

    Returns:
        None for any other request; for one that was refused unread, so that a flood of them hides no click of a project;
        and for the empty request that follows a submit.
    """
    outcome = fields.get("outcome")
    if fields["path"] != CLICK_PATH or "project" not in fields or outcome in (None, EMPTY_CONTEXT):
        return None
    return RecentClick(
        id=fields["id"],
        at_s=time.time(),
        project_id=fields["project"],
        task_id=fields.get("task"),
        label=str(fields.get("label", "")),
        outcome=str(outcome),
        problem=without_secrets(str(fields.get("problem", "")))[:PROBLEM_LENGTH],
        clicks=int(fields.get("clicks", 0)),
        region_id=str(fields.get("region", "")),
        references=tuple(map(str, fields.get("references", ()))),
        model_version=str(fields.get("model", "")),
        milliseconds=float(fields["total_ms"]),
    )


_REASONS = {reason.code: reason for reason in all_reasons()}


def shown_click(click: RecentClick) -> dict[str, Any]:
    """A click as JSON for the pages, with meaning and remedy of its outcome. Words between backticks are code."""
    reason = _REASONS.get(click.outcome)
    return {
        "id": click.id,
        "at_s": click.at_s,
        "project": project_name(click.project_id),
        "task": click.task_id,
        "label": click.label,
        "outcome": click.outcome,
        "answered": click.outcome == ANSWERED,
        "failed": click.has_failed,
        "meaning": "" if reason is None else _LINK.sub(r"\1", reason.meaning),
        "remedy": "" if reason is None else _LINK.sub(r"\1", reason.remedy),
        "problem": click.problem,
        "clicks": click.clicks,
        "region": click.region_id,
        "references": list(click.references),
        "model_version": click.model_version,
        "milliseconds": click.milliseconds,
    }


def shown_lists(clicks: ClickLists) -> dict[str, Any]:
    """Both lists as JSON."""
    return {
        "latest": [shown_click(one) for one in clicks.latest],
        "failed": [shown_click(one) for one in clicks.failed],
    }


class TooManyStreamsError(Exception):
    """As many pages are open as may be."""


class EventStreams:
    """The open event streams of one web process.

    Args:
        read_clicks: Reads the last clicks; called on a thread.
        read_state: Reads what the page shows besides clicks, as JSON; called on a thread.
        threads: Of the pages.
    """

    def __init__(
        self,
        read_clicks: Callable[[], ClickLists],
        read_state: Callable[[], dict[str, Any]],
        threads: CapacityLimiter,
    ) -> None:
        self._clicks = _Shared(read_clicks, LOOK_EVERY_S, threads)
        self._state = _Shared(read_state, STATE_EVERY_S, threads)
        self._open = 0

    def open(self) -> AsyncIterator[bytes]:
        """Opens a stream of events.

        Raises:
            TooManyStreamsError: If `MAX_STREAMS` are open.
        """
        if self._open >= MAX_STREAMS:
            raise TooManyStreamsError
        return self._events()

    async def _events(self) -> AsyncIterator[bytes]:
        self._open += 1
        try:
            ends = time.monotonic() + STREAM_S
            clicks, state = await self._clicks.read(), None
            known = _ids(clicks)
            yield b"retry: 2000\n\n" + _event("clicks", shown_lists(clicks))
            while time.monotonic() < ends:
                before, state = state, self._state.newest()
                if state is not before:
                    yield _event("state", state)
                await asyncio.sleep(LOOK_EVERY_S)
                clicks = await self._clicks.read()
                found = {one.id: one for one in (*clicks.latest, *clicks.failed)}
                new = sorted((found[key] for key in found.keys() - known), key=lambda one: one.at_s)
                known = _ids(clicks)
                if new:
                    yield b"".join(_event("click", shown_click(one)) for one in new)
        finally:
            self._open -= 1


def _ids(clicks: ClickLists) -> set[str]:
    return {one.id for one in (*clicks.latest, *clicks.failed)}


class _Shared:
    """The result of a function that is called at most once per interval, however many ask."""

    def __init__(self, read: Callable[[], Any], interval_s: float, threads: CapacityLimiter) -> None:
        self._read, self._interval_s, self._threads = read, interval_s, threads
        self._lock = asyncio.Lock()
        self._due = 0.0
        self._value: Any = None
        self._refresh: asyncio.Task[Any] | None = None

    async def read(self) -> Any:
        """A result that is not older than the interval."""
        async with self._lock:
            if time.monotonic() >= self._due:
                self._value = await run_sync(self._read, limiter=self._threads)
                self._due = time.monotonic() + self._interval_s
            return self._value

    def newest(self) -> Any:
        """The last result at once, None before the first; a newer one is fetched meanwhile, however long that takes."""
        if time.monotonic() >= self._due and (self._refresh is None or self._refresh.done()):
            self._refresh = asyncio.create_task(self.read())
        return self._value


def _event(name: str, value: object) -> bytes:
    """One server-sent event. JSON has no line breaks, so one line is enough."""
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()
