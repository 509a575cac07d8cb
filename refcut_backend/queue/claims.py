"""What becomes of one click, or of a task to prelabel: a small key in Redis, gone when nobody waits any more.

`waiting` until a worker claims it, then `held by` that worker; `superseded` from the moment a newer click replaces it. A
worker computes a click only after a claim, so no click is computed that nobody waits for, and none twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.client import Pipeline

WAITING = "waiting"
SUPERSEDED = "superseded"
_HELD_BY = "held by "

_CLAIM = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return redis.call('PTTL', KEYS[1])
"""


@dataclass(frozen=True)
class ClaimState:
    """worker: who holds the click; None while it waits, and after it was superseded."""

    superseded: bool
    worker: str | None


def issue(pipeline: Pipeline, click_id: str, lasts_s: float) -> None:
    """A click that waits for a worker until its deadline."""
    pipeline.set(_key(click_id), WAITING, px=max(round(1000 * lasts_s), 1))


def claim(pipeline: Pipeline, click_id: str, worker: str) -> None:
    """The click is this worker's, if it still waits. `seconds_left` reads the pipeline's answer."""
    pipeline.eval(_CLAIM, 1, _key(click_id), WAITING, _HELD_BY + worker)


def seconds_left(claimed: Any) -> float | None:
    """How long the caller of a claimed click waits; None when the click is not to be computed (any more)."""
    return int(claimed) / 1000 if int(claimed) > 0 else None


def supersede(pipeline: Pipeline, click_id: str) -> None:
    """No worker can claim the click from now on."""
    pipeline.set(_key(click_id), SUPERSEDED, xx=True, keepttl=True)


def read(connection: Redis, click_id: str) -> ClaimState | None:
    """None when there is no ticket: its deadline has passed, or Redis was emptied."""
    value = connection.get(_key(click_id))
    if not isinstance(value, bytes):
        return None
    text = value.decode()
    worker = text.removeprefix(_HELD_BY) if text.startswith(_HELD_BY) else None
    return ClaimState(text == SUPERSEDED, worker)


def renew(pipeline: Pipeline, click_id: str, lasts_s: float) -> None:
    """Somebody still waits. The pipeline's answer is 0 when the ticket is gone."""
    pipeline.pexpire(_key(click_id), max(round(1000 * lasts_s), 1))


def withdraw(pipeline: Pipeline, click_id: str) -> None:
    """The caller has its answer or has gone."""
    pipeline.delete(_key(click_id))


def _key(click_id: str) -> str:
    return f"refcut:ticket:{click_id}"
