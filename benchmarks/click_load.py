"""Annotators who click as fast as they like: `python -m benchmarks.click_load [--annotators 8] [--seconds 30]`.

Every annotator sends a click on time, whether or not the last one has been answered, first at the given rate and then
at ten times that. The load is made on the same machine, and competes with the backend for its cores.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.backend import ANSWERED, LOST, Backend, Outcome, running_backend
from benchmarks.report import machine, percentile_ms, print_table, write_json
from benchmarks.stream import StreamClick, clicks_of

OVERLOAD = 10
GRACE_S = 0.5
"""What the way from and to the caller may add to the deadline."""


@dataclass(frozen=True)
class Load:
    """What was sent at one rate, and what became of it. memory_mb: before and after."""

    name: str
    outcomes: list[Outcome]
    memory_mb: tuple[float, float]

    def seconds(self, reason: str) -> list[float]:
        """How long the clicks that ended this way took."""
        return [outcome.seconds for outcome in self.outcomes if outcome.reason == reason]


def send_load(
    backend: Backend,
    name: str,
    annotators: int,
    clicks_per_s: float,
    seconds: float,
    clicks: Callable[[int], Iterator[StreamClick]] = clicks_of,
) -> Load:
    """Sends every click at its time and waits for all answers.

    Args:
        backend: Takes the clicks.
        name: Of the load.
        annotators: Their number.
        clicks_per_s: Of each annotator.
        seconds: How long clicks are sent.
        clicks: The clicks of an annotator.
    """
    streams = [clicks(number) for number in range(annotators)]
    before = backend.memory_mb()
    started = time.monotonic()
    replies: list[Future[Outcome]] = []
    with ThreadPoolExecutor(min(2000, round(annotators * clicks_per_s * seconds))) as callers:
        for number in range(round(annotators * clicks_per_s * seconds)):
            time.sleep(max(started + number / (annotators * clicks_per_s) - time.monotonic(), 0))
            replies.append(callers.submit(backend.click, next(streams[number % annotators])))
    return Load(name, [reply.result() for reply in replies], (before, backend.memory_mb()))


def print_loads(loads: Sequence[Load], deadline_s: float) -> None:
    """Print one table row per load: how many clicks ended for which reason, and how long answers took."""
    reasons = sorted({outcome.reason for load in loads for outcome in load.outcomes} | {ANSWERED, LOST})
    rows = []
    for load in loads:
        counted = Counter(outcome.reason for outcome in load.outcomes)
        late = sum(outcome.seconds > deadline_s + GRACE_S for outcome in load.outcomes)
        answered, busy = load.seconds(ANSWERED), load.seconds("busy")
        rows.append(
            [load.name, len(load.outcomes)]
            + [counted[reason] for reason in reasons]
            + [late, percentile_ms(answered, 50), percentile_ms(answered, 95)]
            + [percentile_ms(busy, 50), percentile_ms(busy, 95)]
            + [" to ".join(f"{size:.0f}" for size in load.memory_mb)]
        )
    columns = ["load", "sent", *reasons, "after the deadline", "p50 ms", "p95 ms"]
    print_table([*columns, "busy p50 ms", "busy p95 ms", "memory MB"], rows)


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotators", type=int, default=8)
    parser.add_argument("--clicks-per-s", type=float, default=1.0, help="of one annotator")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--deadline-s", type=int, default=8)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    with running_backend(arguments.workers, arguments.deadline_s) as backend:
        send_load(backend, "warm-up", arguments.annotators, arguments.clicks_per_s, 3)
        loads = [
            send_load(
                backend,
                f"{arguments.annotators} annotators, {rate:g} clicks/s each",
                arguments.annotators,
                rate,
                arguments.seconds,
            )
            for rate in (arguments.clicks_per_s, OVERLOAD * arguments.clicks_per_s)
        ]
    print(f"{machine()}, {arguments.workers} worker(s), deadline {arguments.deadline_s} s")
    print_loads(loads, arguments.deadline_s)
    write_json(arguments.json, {"arguments": str(vars(arguments)), "loads": [asdict(load) for load in loads]})


if __name__ == "__main__":
    main()
