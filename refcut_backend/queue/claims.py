"""Who may compute a job that somebody waits for: a small key in Redis that is gone when nobody waits any more.

    (no key)      nobody waits: the deadline has passed, the caller has its answer, or Redis was emptied
    waiting       sent; no worker has it
    held by W     worker W computes it
    superseded    a newer click on the same object replaced it; no worker can claim it

A worker claims a click or a pre-labelling task before it computes it. Therefore nothing is computed that nobody waits
for, and nothing is computed twice, even if two workers are handed the same job. The key still has the prefix
`refcut:ticket:` that version 0.1.0 gave it, so that web processes and workers of both versions can share one Redis
during an update.

Two more keys tell `admission` when the workers will be free:

    refcut:waiting            waiting click -> task, kind ("first" or "later"), deadline
    refcut:in-work:<worker>   when the worker's click will probably be answered; expires `IN_WORK_KEPT_MS` after the
                              click's deadline; absent while the worker computes none

Times are milliseconds of Redis' own clock, because the machines' clocks may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.client import Pipeline

WAITING = "waiting"
SUPERSEDED = "superseded"
_HELD_BY = "held by "

CLAIM_PREFIX = "refcut:ticket:"
WAITING_KEY = "refcut:waiting"
IN_WORK_PREFIX = "refcut:in-work:"
IN_WORK_KEPT_MS = 2000
"""A worker that is slow to end a click at its deadline counts as busy for so long."""

_CLAIM = """
redis.call('HDEL', KEYS[2], ARGV[3])
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local left = redis.call('PTTL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
local expected, needed = tonumber(ARGV[4]), tonumber(ARGV[5])
if left < needed then return -left end
if expected > 0 then
  local time = redis.call('TIME')
  local ends = time[1] * 1000 + math.floor(time[2] / 1000) + expected
  redis.call('SET', KEYS[3], string.format('%.0f', ends), 'PX', left + tonumber(ARGV[6]))
end
return left
"""
"""The waiting click is forgotten in any case: it has left the queue."""


@dataclass(frozen=True)
class Claim:
    """A worker's answer to `claim`.

    Attributes:
        is_granted: Whether this worker holds the job now. If not, it must not compute it.
        is_in_time: Whether enough time is left. If not, the worker must refuse the job at once.
        left_s: Seconds until the caller stops waiting.
    """

    is_granted: bool
    is_in_time: bool
    left_s: float


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


def claim(
    pipeline: Pipeline, job_id: str, worker: str, *, expected_s: float = 0.0, needed_s: float = 0.0
) -> None:
    """Give the job to a worker if it still waits. `read_claim` reads the pipeline's result.

    Args:
        pipeline: Where the claim is added.
        job_id: The job.
        worker: Name of the worker.
        expected_s: How long the job will probably take; 0 if nobody has to know.
        needed_s: With less time than this until the deadline, the job is not worth beginning.
    """
    pipeline.eval(
        _CLAIM,
        3,
        _key(job_id),
        WAITING_KEY,
        IN_WORK_PREFIX + worker,
        WAITING,
        _HELD_BY + worker,
        job_id,
        str(round(1000 * expected_s)),
        str(round(1000 * needed_s)),
        str(IN_WORK_KEPT_MS),
    )


def read_claim(claimed: Any) -> Claim:
    """Read the pipeline's result for `claim`: milliseconds left; negative if they are too few; 0 if not granted."""
    left_ms = int(claimed)
    return Claim(left_ms != 0, left_ms > 0, abs(left_ms) / 1000)


def release(pipeline: Pipeline, worker: str) -> None:
    """Note that the worker is free again."""
    pipeline.delete(IN_WORK_PREFIX + worker)


def read(connection: Redis, job_id: str) -> ClaimState | None:
    """Read the state of a job; None if there is no key (see the table above)."""
    value = connection.get(_key(job_id))
    if not isinstance(value, bytes):
        return None
    text = value.decode(errors="replace")
    worker = text.removeprefix(_HELD_BY) if text.startswith(_HELD_BY) else None
    return ClaimState(text == SUPERSEDED, worker)


def renew(connection: Redis, job_id: str, lasts_s: float) -> None:
    """Keep a job claimed or claimable for another `lasts_s` seconds. Does nothing if there is no key."""
    connection.pexpire(_key(job_id), max(round(1000 * lasts_s), 1))


def delete(pipeline: Pipeline, job_id: str) -> None:
    """Forget the job: its caller has an answer or no longer waits."""
    pipeline.delete(_key(job_id))
    pipeline.hdel(WAITING_KEY, job_id)


def _key(job_id: str) -> str:
    return CLAIM_PREFIX + job_id
