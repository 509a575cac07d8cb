"""Whether memory stays flat over thousands of clicks: `python -m benchmarks.soak [--clicks 5000] [--warm-up 1000]`.

`refcut run` with the model that ships, two annotators, one click after the other. Resident memory of every process is
read as the clicks go by. Ends with status 1 if all of them have grown by more than --limit-mb since the warm-up, by the
medians of the first and the last tenth of the readings, or if a click was not answered. Ctrl-C ends it early, with what
the clicks so far have shown.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from benchmarks.backend import ANSWERED, Backend, running_backend
from benchmarks.report import machine, print_table, write_json
from benchmarks.stream import clicks_of

ANNOTATORS = 2
EVERY = 10
"""Clicks between two readings."""


def resident_mb(backend: Backend) -> dict[str, float]:
    """Resident memory by process; Redis by what it says that it holds."""
    found = {"Redis": backend.redis.info("memory")["used_memory"] / 2**20}
    for child in psutil.Process(backend.process.pid).children():
        name = "worker" if "worker" in child.cmdline() else "web server"
        found[name] = found.get(name, 0.0) + child.memory_info().rss / 2**20
    return found


def soak(backend: Backend, clicks: int) -> tuple[list[dict[str, float]], Counter[str]]:
    """Send clicks. Returns the readings of memory, and how many clicks ended for which reason."""
    streams = [clicks_of(number) for number in range(ANNOTATORS)]
    readings: list[dict[str, float]] = []
    outcomes: Counter[str] = Counter()
    with suppress(KeyboardInterrupt):
        for number in range(clicks):
            outcomes[backend.click(next(streams[number % ANNOTATORS])).reason] += 1
            if number % EVERY == EVERY - 1:
                readings.append({"clicks": number + 1, **resident_mb(backend)})
                if number % (10 * EVERY) == 10 * EVERY - 1:
                    print(readings[-1], file=sys.stderr, flush=True)
    return readings, outcomes


def growth_mb(readings: list[dict[str, float]], name: str) -> float:
    """Median of the last tenth of the readings minus that of the first."""
    values = [reading[name] for reading in readings]
    tenth = max(len(values) // 10, 1)
    return float(np.median(values[-tenth:]) - np.median(values[:tenth]))


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clicks", type=int, default=5000, help="after the warm-up")
    parser.add_argument("--warm-up", type=int, default=1000)
    parser.add_argument("--limit-mb", type=float, default=5.0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)
    with running_backend(click_timeout_s=60, more={"REFCUT_RECONCILE_INTERVAL_S": "0"}) as backend:
        _, warm_up = soak(backend, arguments.warm_up)
        started = time.monotonic()
        readings, outcomes = soak(backend, arguments.clicks)
        took_s = time.monotonic() - started
    print(
        f"{machine()}; {outcomes.total()} clicks in {took_s:.0f} s after {warm_up.total()} of warm-up: {dict(outcomes)}"
    )
    names = ("web server", "worker", "Redis")
    rows = [
        [name, f"{readings[0][name]:.1f}", f"{readings[-1][name]:.1f}", f"{growth_mb(readings, name):+.1f}"]
        for name in names
    ]
    print_table(["process", "resident at the start, MiB", "at the end", "growth of the median"], rows)
    write_json(arguments.json, {"outcomes": dict(outcomes), "readings": readings})
    grown = sum(growth_mb(readings, name) for name in names)
    sys.exit(grown > arguments.limit_mb or set(outcomes) != {ANSWERED})


if __name__ == "__main__":
    main()
