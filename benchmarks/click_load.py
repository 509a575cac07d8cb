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
from itertools import islice
from pathlib import Path

from benchmarks.backend import ANSWERED, LOST, Backend, Outcome, running_backend
from benchmarks.report import machine, percentile_ms, print_table, write_json
from benchmarks.stream import StreamClick, clicks_of

OVERLOAD = 10
GRACE_S = 0.5
"""What the way from and to the caller may add to the deadline."""
USUAL_REASONS = (ANSWERED, "superseded", "busy", "timeout", "starting")


@dataclass(frozen=True)
class Load:
    """What was sent at one rate, and what became of it. memory_mb: before and after."""

    name: str
    outcomes: list[Outcome]
    memory_mb: tuple[float, float]


def seconds_of(outcomes: Sequence[Outcome], reason: str) -> list[float]:
    """How long the clicks that ended for a reason took."""
    return [outcome.seconds for outcome in outcomes if outcome.reason == reason]


class OutcomeColumns:
    """The columns of a table that show how clicks ended: their number per reason, and how long answers took.

    Args:
        loads: The clicks of each row.
        deadline_s: Deadline of a click in seconds.
    """

    def __init__(self, loads: Sequence[Sequence[Outcome]], deadline_s: float) -> None:
        seen = {outcome.reason for outcomes in loads for outcome in outcomes} | {LOST}
        self._reasons = [*USUAL_REASONS, *sorted(seen - set(USUAL_REASONS))]
        self._deadline_s = deadline_s

    @property
    def titles(self) -> list[str]:
        """Titles of the columns."""
        return ["sent", *self._reasons, "late", "p50 ms", "p95 ms", "busy p50 ms", "busy p95 ms"]

    def cells(self, outcomes: Sequence[Outcome]) -> list[object]:
        """The cells of one row."""
        counted = Counter(outcome.reason for outcome in outcomes)
        late = sum(outcome.seconds > self._deadline_s + GRACE_S for outcome in outcomes)
        spent = [seconds_of(outcomes, reason) for reason in (ANSWERED, "busy")]
        return [
            len(outcomes),
            *(counted[reason] for reason in self._reasons),
            late,
            *(percentile_ms(seconds, percent) for seconds in spent for percent in (50, 95)),
        ]


def send_load(
    backend: Backend,
    name: str,
    annotators: int,
    clicks_per_s: float,
    seconds: float,
    clicks: Callable[[int], Iterator[StreamClick]] = clicks_of,
) -> Load:
    """Sends every click at its time and waits for all answers. Every load has annotators of its own.

    Args:
        backend: Takes the clicks.
        name: Of the load.
        annotators: Their number.
        clicks_per_s: Of each annotator.
        seconds: How long clicks are sent.
        clicks: The clicks of an annotator.
    """
    streams = [clicks(number) for number in islice(backend.new_annotators, annotators)]
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
    columns = OutcomeColumns([load.outcomes for load in loads], deadline_s)
    rows = [
        [load.name, *columns.cells(load.outcomes), " to ".join(f"{size:.0f}" for size in load.memory_mb)]
        for load in loads
    ]
    print_table(["load", *columns.titles, "memory MB"], rows)


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
