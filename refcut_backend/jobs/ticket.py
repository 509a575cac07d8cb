"""What becomes of one click: a small key in Redis, written when the click is sent and gone at its deadline.

`waiting` until a worker claims it, then `held by` that worker; `superseded` from the moment a newer click replaces it. A
worker computes a click only after a claim, so no click is computed that nobody waits for, and none twice.
"""

from __future__ import annotations

from dataclasses import dataclass

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
class TicketState:
    """worker: who holds the click; None while it waits, and after it was superseded."""

    superseded: bool
    worker: str | None


def issue(pipeline: Pipeline, click_id: str, lasts_s: float) -> None:
    """A click that waits for a worker until its deadline."""
    pipeline.set(_key(click_id), WAITING, px=max(round(1000 * lasts_s), 1))


def claim(connection: Redis, click_id: str, worker: str) -> float | None:
    """Seconds that this worker has for the click; None when it is not to be computed (any more)."""
    script = connection.register_script(_CLAIM)
    left_ms = int(script(keys=[_key(click_id)], args=[WAITING, _HELD_BY + worker]))
    return left_ms / 1000 if left_ms > 0 else None


def supersede(pipeline: Pipeline, click_id: str) -> None:
    """No worker can claim the click from now on."""
    pipeline.set(_key(click_id), SUPERSEDED, xx=True, keepttl=True)


def read(connection: Redis, click_id: str) -> TicketState | None:
    """None when there is no ticket: its deadline has passed, or Redis was emptied."""
    value = connection.get(_key(click_id))
    if not isinstance(value, bytes):
        return None
    text = value.decode()
    worker = text.removeprefix(_HELD_BY) if text.startswith(_HELD_BY) else None
    return TicketState(text == SUPERSEDED, worker)


def withdraw(pipeline: Pipeline, click_id: str) -> None:
    """The caller has its answer or has gone."""
    pipeline.delete(_key(click_id))


def _key(click_id: str) -> str:
    return f"refcut:ticket:{click_id}"
