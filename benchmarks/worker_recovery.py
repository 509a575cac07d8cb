"""A worker killed in the middle of a click: `python -m benchmarks.worker_recovery [--kills 10]`.

How long until its caller hears of it, and until the next click, sent at once, is served.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.backend import ANSWERED, Backend, running_backend
from benchmarks.report import machine, print_table, write_json
from benchmarks.stream import clicks_of
from refcut_backend.queue import claims

DEADLINE_S = 60


@dataclass(frozen=True)
class Recovery:
    """Seconds from the kill to the caller's answer, and to the next click's mask."""

    reason: str
    heard_s: float
    served_s: float
    next_reason: str


def is_in_work(backend: Backend) -> bool:
    """Whether a worker has claimed a click."""
    claim_keys = backend.redis.keys("refcut:ticket:*")
    return any(backend.redis.get(key) not in (None, claims.WAITING.encode()) for key in claim_keys)


def kill_in_the_middle(backend: Backend, annotator: int, callers: ThreadPoolExecutor) -> Recovery:
    """Kills the only worker once it has claimed a click; sends the next click at once."""
    clicks = clicks_of(annotator)
    (pid,) = backend.worker_pids()
    lost = callers.submit(backend.click, next(clicks))
    while not is_in_work(backend):
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    following = backend.click(next(clicks_of(annotator + 1000)))
    heard = lost.result()
    return Recovery(
        heard.reason,
        heard.sent + heard.seconds - killed,
        following.sent + following.seconds - killed,
        following.reason,
    )


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    with running_backend(click_timeout_s=DEADLINE_S) as backend, ThreadPoolExecutor() as callers:
        found = [kill_in_the_middle(backend, number, callers) for number in range(arguments.kills)]
    rows = [
        [name, f"{statistics.median(values):.2f}", f"{max(values):.2f}"]
        for name, values in (
            ("until the caller hears of it", [recovery.heard_s for recovery in found]),
            ("until the next click is served", [recovery.served_s for recovery in found]),
        )
    ]
    reasons = sorted({recovery.reason for recovery in found})
    served = sum(recovery.next_reason == ANSWERED for recovery in found)
    print(
        f"{machine()}; {len(found)} kills, callers heard: {', '.join(reasons)}; next click served: {served}"
    )
    print_table(["seconds after kill -9", "median", "longest"], rows)
    write_json(arguments.json, {"kills": [asdict(recovery) for recovery in found]})


if __name__ == "__main__":
    main()
