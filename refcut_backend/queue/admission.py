"""Decides in Redis, in one step, whether a click may wait: only if its turn comes soon enough.

The script below is part of the transaction that queues the click. It works out when the click's turn would come: it
gives every waiting click, in order, to the worker that is free first, with the times that the workers have measured.

    the click                                                    becomes
    -----------------------------------------------------------  ---------------------------------------------------
    a newer click on an object whose older click still waits     queued in the place of the older one
    an idle worker                                               queued
    its turn comes in time (below)                               queued
    its turn comes too late, or REFCUT_CLICK_QUEUE_LIMIT wait    refused at once (`busy`); nothing of it stays in Redis

A turn comes in time if the click can be answered before its deadline, and after a wait of REFCUT_CLICK_QUEUE_WAIT_S at
most. An annotator who waits longer has clicked again, so a longer queue would only make every answer older. `ALWAYS_WAIT`
clicks per worker may wait in any case: a slow worker would otherwise have nothing to do now and then, because clicks come
unevenly. The click in work counts for no more than a typical one: one slow click refuses nobody.

The queue is first come, first served. With admission by expected wait that is fair, and a newer click on the same object
takes over the place that its annotator has waited for: nobody loses a turn by clicking again.

A task that has a click in the queue already may fill only a part of it: three quarters, and under load its equal share
among the tasks of the last seconds. An annotator who sends clicks without end therefore leaves room for the others.

No other order answers more clicks. Newest first would, if clicks became worthless while they wait; the ones that do are
older clicks on the same object, and those are replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.client import Pipeline

from refcut_backend.queue import claims
from refcut_backend.queue.heartbeats import NAMES_KEY, UNMEASURED_S, WORKER_PREFIX
from refcut_backend.queue.rq_jobs import CLICK_QUEUE

ALWAYS_WAIT = 2
"""Clicks per worker that may wait however long that takes, as long as they can be answered before their deadline."""
PART = 0.95
"""Part of the deadline that is planned with; the rest is for what is not measured, such as the way to the browser."""
SPARE = 1.5
"""A click is queued only if this multiple of its own duration is left when its turn comes."""
RECENT_TASKS_S = 10
"""The tasks that sent a click within this time share the queue."""

_ASKING = "refcut:asking"

_ENTER = """
local queue, unanswered, waiting_key, asking_key, names_key, job_key, claim_key = unpack(KEYS)
local click, dots, task, kind = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local limit, timeout, longest_wait = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local claim, forced = tonumber(ARGV[8]), ARGV[9] == '1'
local keep = math.ceil(timeout / 1000) + 30
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local waiting_older, held_older, replaced = {}, {}, {}
for n = 10, #ARGV do
  local state = redis.call('GET', 'CLAIM' .. ARGV[n])
  if state == 'WAITING' then
    table.insert(waiting_older, ARGV[n])
    replaced[ARGV[n]] = true
  elseif state and state ~= 'SUPERSEDED' then
    table.insert(held_older, ARGV[n])
  end
end

local kinds, own = {}, 0
local entries = redis.call('HGETALL', waiting_key)
for n = 1, #entries, 2 do
  local of, its_kind, due = string.match(entries[n + 1], '^(%S+) (%S+) (%d+)$')
  if not of or tonumber(due) <= now then
    redis.call('HDEL', waiting_key, entries[n])
  elseif entries[n] ~= click and not replaced[entries[n]] then
    table.insert(kinds, its_kind)
    if of == task then own = own + 1 end
  end
end
for n = #kinds + #waiting_older + 1, redis.call('LLEN', queue) - 1 do table.insert(kinds, 'later') end

redis.call('ZREMRANGEBYSCORE', asking_key, '-inf', now - 1000 * RECENT_TASKS_S)
redis.call('ZADD', asking_key, now, task)
redis.call('EXPIRE', asking_key, RECENT_TASKS_S)
local tasks = redis.call('ZCARD', asking_key)

local function milliseconds(...)
  for n = 1, select('#', ...) do
    local seconds = select(n, ...)
    if type(seconds) == 'number' and seconds >= 0 and seconds <= 3600 then
      return math.min(math.max(1000 * seconds, 1), timeout)
    end
  end
  return 1000 * UNMEASURED_S
end

-- Milliseconds until a worker has done the click in its work. One that takes longer than expected is expected to take as
-- long again as it is late, but the worker ends it at its deadline.
local function rest(name)
  local ends = tonumber(redis.call('GET', 'IN_WORK' .. name) or now) or now
  local left = redis.call('PTTL', 'IN_WORK' .. name)
  local late = math.abs(ends - now)
  return left < 0 and late or math.min(late, math.max(left - KEPT_MS, 1))
end

local free, speed = {}, {}
for _, name in ipairs(redis.call('SMEMBERS', names_key)) do
  local read, state = pcall(cjson.decode, redis.call('GET', 'WORKER' .. name) or 'null')
  if read and type(state) == 'table' and state.ready == true and type(state.queues) == 'table' then
    for _, served in pairs(state.queues) do
      if served == 'CLICKS' then
        table.insert(free, rest(name))
        table.insert(speed, {
          first = milliseconds(state.first_click_s, state.click_s),
          later = milliseconds(state.later_click_s, state.click_s)
        })
      end
    end
  end
end

local function soonest()
  local best = 1
  for n = 2, #free do if free[n] < free[best] then best = n end end
  return best
end

local function is_admitted(start, in_work, worker)
  local filled, places = 0, limit
  if #kinds >= limit then return false end
  if worker then
    if start == 0 then return true end
    local typical = (speed[worker].first + speed[worker].later) / 2
    local in_time = PART * timeout - SPARE * speed[worker][kind]
    if in_time <= 0 then return false end
    local always, wait = ALWAYS_WAIT * #free, start - in_work + math.min(in_work, typical)
    filled = math.max(start / in_time, #kinds >= always and wait / longest_wait or 0)
    places = math.floor(#free * math.min(in_time, longest_wait) / typical)
    places = math.min(limit, math.max(places, always))
  end
  if filled > 1 then return false end
  if own > 0 then
    if filled > 0.75 then return false end
    local is_loaded = #kinds > places / 4
    if tasks > 1 and is_loaded and own >= math.max(math.floor(places / tasks), 1) then return false end
  end
  return true
end

local superseded = waiting_older
if #waiting_older == 0 then
  local start, in_work, worker = 0, 0, nil
  if #free > 0 then
    local rests = {unpack(free)}
    for _, its_kind in ipairs(kinds) do
      local taker = soonest()
      free[taker] = free[taker] + (speed[taker][its_kind] or speed[taker].later)
    end
    worker = soonest()
    start, in_work = free[worker], rests[worker]
  end
  if not forced and not is_admitted(start, in_work, worker) then
    redis.call('LREM', queue, -1, click)
    redis.call('DEL', job_key)
    return {0, #kinds, worker and math.floor(start + speed[worker][kind]) or -1}
  end
  -- While others wait, the newer click starts long after the older one is answered: that answer is worth having.
  if #kinds == 0 then superseded = held_older end
end

redis.call('SET', claim_key, 'WAITING', 'PX', claim)
redis.call('HSET', unanswered, click, dots)
redis.call('EXPIRE', unanswered, keep)
redis.call('HSET', waiting_key, click, task .. ' ' .. kind .. ' ' .. (now + claim))
redis.call('EXPIRE', waiting_key, keep)
if #waiting_older > 0 then
  redis.call('LREM', queue, -1, click)
  -- If a worker has just taken the older click off the queue, its turn has come.
  if redis.call('LINSERT', queue, 'BEFORE', waiting_older[1], click) < 1 then redis.call('LPUSH', queue, click) end
end
for _, older in ipairs(superseded) do
  redis.call('SET', 'CLAIM' .. older, 'SUPERSEDED', 'XX', 'KEEPTTL')
  redis.call('LREM', queue, 0, older)
  redis.call('HDEL', unanswered, older)
  redis.call('HDEL', waiting_key, older)
end
return {1, superseded}
"""


def _script() -> str:
    """The script with its constants; longer names first, because some begin with others."""
    constants = {
        "UNMEASURED_S": f"{UNMEASURED_S:g}",
        "ALWAYS_WAIT": f"{ALWAYS_WAIT:d}",
        "RECENT_TASKS_S": f"{RECENT_TASKS_S:g}",
        "SPARE": f"{SPARE:g}",
        "PART": f"{PART:g}",
        "CLAIM": claims.CLAIM_PREFIX,
        "IN_WORK": claims.IN_WORK_PREFIX,
        "KEPT_MS": f"{claims.IN_WORK_KEPT_MS:d}",
        "WORKER": WORKER_PREFIX,
        "WAITING": claims.WAITING,
        "SUPERSEDED": claims.SUPERSEDED,
        "CLICKS": CLICK_QUEUE,
    }
    script = _ENTER
    for name, value in constants.items():
        script = script.replace(name, value)
    return script


@dataclass(frozen=True)
class AdmissionRequest:
    """A click that asks to be queued.

    Attributes:
        click_id: The rq job, which has just been added to the end of the queue.
        task: Identifies the task among all projects; without a space.
        unanswered_key: Redis hash with the unanswered clicks of the task: id to dots.
        dots: Ids of its dots, as JSON.
        is_first: Whether it is the first click of its object.
        claim_s: Seconds until its deadline.
        is_forced: Whether it was queued before and Redis has lost it.
        older: Clicks of the same object that may still wait or be in work.
    """

    click_id: str
    task: str
    unanswered_key: str
    dots: str
    is_first: bool
    claim_s: float
    is_forced: bool
    older: Sequence[str]


@dataclass(frozen=True)
class Decision:
    """What became of a click that asked to be queued.

    Attributes:
        is_admitted: Whether it is queued.
        superseded: Older clicks on the same object that it replaces; their callers do not know yet.
        waiting: Clicks before it, if it was refused.
        wait_s: Seconds until it would have been answered, if it was refused; None without a ready worker.
    """

    is_admitted: bool
    superseded: tuple[str, ...] = ()
    waiting: int = 0
    wait_s: float | None = None


class Admission:
    """Admits clicks to the queue.

    Args:
        queue_key: Redis list with the ids of the waiting clicks.
        timeout_s: Deadline of a click in seconds.
        limit: Highest number of clicks that may wait.
        longest_wait_s: Longest time in seconds that a click waits for its turn, by what the workers have measured.
    """

    def __init__(self, queue_key: str, timeout_s: float, limit: int, longest_wait_s: float) -> None:
        self._queue_key = queue_key
        self._timeout_s = timeout_s
        self._limit = limit
        self._longest_wait_s = longest_wait_s
        self._script = _script()

    def enter(self, pipeline: Pipeline, request: AdmissionRequest, job_key: str) -> None:
        """Add the decision to the transaction that queues a click. `read` reads its result.

        Args:
            pipeline: The transaction; the click was added to the end of the queue before.
            request: The click.
            job_key: Redis key of the rq job, which is removed if the click is refused.
        """
        keys = (
            self._queue_key,
            request.unanswered_key,
            claims.WAITING_KEY,
            _ASKING,
            NAMES_KEY,
            job_key,
            claims.CLAIM_PREFIX + request.click_id,
        )
        pipeline.eval(
            self._script,
            len(keys),
            *keys,
            request.click_id,
            request.dots,
            request.task,
            "first" if request.is_first else "later",
            str(self._limit),
            str(round(1000 * self._timeout_s)),
            str(max(round(1000 * self._longest_wait_s), 1)),
            str(max(round(1000 * request.claim_s), 1)),
            "1" if request.is_forced else "0",
            *request.older,
        )

    @staticmethod
    def read(result: Any) -> Decision:
        """Read the transaction's result for `enter`."""
        if result[0]:
            return Decision(True, tuple(one.decode() for one in result[1]))
        return Decision(False, (), int(result[1]), None if result[2] < 0 else result[2] / 1000)
