"""More clicks than a worker can compute: its whole capacity becomes answers, and the others hear so at once."""

from __future__ import annotations

import time
from concurrent.futures import Future
from statistics import median

import pytest

from refcut_backend.queue.queue_state import read_queue_state
from tests.support.worker_farm import Reply, WorkerFarm, click

CLICK_S = 0.25
TIMEOUT_S = 5
SECONDS = 6.0
FACTORS = (2.5, 10.0)
"""Offered load as a multiple of what the worker can compute."""


def offer(farm: WorkerFarm, clicks_per_s: float, annotators: int) -> list[Reply]:
    """Clicks at even times, whether or not the last ones are answered; each begins an object of its annotator."""
    queue = farm.queue(timeout_s=TIMEOUT_S, limit=64)
    started = time.monotonic()
    replies: list[Future[Reply]] = []
    for number in range(round(SECONDS * clicks_per_s)):
        time.sleep(max(started + number / clicks_per_s - time.monotonic(), 0))
        task = 1 + number % annotators
        replies.append(farm.ask(click(f"sleep {CLICK_S}", f"{number}", task=task, name=f"/{number}"), queue))
    return [reply.result() for reply in replies]


@pytest.mark.parametrize("factor", FACTORS)
def test_at_several_times_the_load_all_that_is_computed_is_answered_and_the_rest_hears_busy(farm, factor):
    farm.start_worker()
    for number in range(3):
        farm.ask_and_wait(click(f"sleep {CLICK_S}", f"measured {number}"))
    before = len(farm.computed())
    alone = [farm.ask_and_wait(click(f"sleep {CLICK_S}", f"alone {n}", task=99)).seconds for n in range(5)]
    began = time.monotonic()
    replies = offer(farm, factor / CLICK_S, annotators=8)
    busy_for_s = max(reply.at for reply in replies if reply.reason == "answered") - began
    reasons = [reply.reason for reply in replies]
    answered, begun = reasons.count("answered"), len(farm.computed()) - before - len(alone)
    assert answered >= 0.95 * begun, "what is begun is answered in time"
    # A machine that stands still for seconds may cost a click or two; the collapse that this is about costs most of them.
    assert answered + reasons.count("busy") >= 0.97 * len(reasons), reasons
    # What this worker can compute was measured a moment ago, one click after another.
    assert answered >= 0.6 * busy_for_s / median(alone)
    refused = [reply.seconds for reply in replies if reply.reason == "busy"]
    assert median(refused) < TIMEOUT_S / 4, "they hear it when they ask, and not at their deadline"
    assert read_queue_state(farm.connection).outcomes["busy"] == len(refused)
