"""Who may compute a job that somebody waits for: a small key in Redis that is gone when nobody waits any more.

    (no key)      nobody waits: the deadline has passed, the caller has its answer, or Redis was emptied
    waiting       sent; no worker has it
    held by W     worker W computes it
    superseded    a newer click on the same object replaced it; no worker can claim it

A worker claims a click or a pre-labelling task before it computes it. Therefore nothing is computed that nobody waits
for, and nothing is computed twice, even if two workers are handed the same job. The key still has the prefix
`refcut:ticket:` that version 0.1.0 gave it, so that web processes and workers of both versions can share one Redis
during an update.
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
    """State of a job that somebody waits for.

    Attributes:
        superseded: Whether a newer click replaced this one.
        worker: Name of the worker that holds the job; None while it waits or if it was superseded.
    """

    superseded: bool
    worker: str | None


def create(pipeline: Pipeline, job_id: str, lasts_s: float) -> None:
    """Make a job claimable until `lasts_s` seconds from now."""
    pipeline.set(_key(job_id), WAITING, px=max(round(1000 * lasts_s), 1))


def claim(pipeline: Pipeline, job_id: str, worker: str) -> None:
    """Give the job to a worker if it still waits. `seconds_left` reads the pipeline's answer."""
    pipeline.eval(_CLAIM, 1, _key(job_id), WAITING, _HELD_BY + worker)


def seconds_left(claimed: Any) -> float | None:
    """Read the answer to `claim`.

    Args:
        claimed: The pipeline's result for the claim: milliseconds, or 0 and less.

    Returns:
        Seconds until the caller stops waiting; None if the worker did not get the job and must not compute it.
    """
    return int(claimed) / 1000 if int(claimed) > 0 else None


def supersede(pipeline: Pipeline, job_id: str) -> None:
    """Prevent any worker from claiming the job from now on."""
    pipeline.set(_key(job_id), SUPERSEDED, xx=True, keepttl=True)


def read(connection: Redis, job_id: str) -> ClaimState | None:
    """Read the state of a job; None if there is no key (see the table above)."""
    value = connection.get(_key(job_id))
    if not isinstance(value, bytes):
        return None
    text = value.decode()
    worker = text.removeprefix(_HELD_BY) if text.startswith(_HELD_BY) else None
    return ClaimState(text == SUPERSEDED, worker)


def renew(connection: Redis, job_id: str, lasts_s: float) -> None:
    """Keep a job claimed or claimable for another `lasts_s` seconds. Does nothing if there is no key."""
    connection.pexpire(_key(job_id), max(round(1000 * lasts_s), 1))


def delete(pipeline: Pipeline, job_id: str) -> None:
    """Forget the job: its caller has an answer or no longer waits."""
    pipeline.delete(_key(job_id))


def _key(job_id: str) -> str:
    return f"refcut:ticket:{job_id}"
