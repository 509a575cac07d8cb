"""Clicks a second with 1, 2 and 4 workers: `python -m benchmarks.many_workers [--seconds 20]`.

The workers of one machine share its cores: `refcut run` gives each an equal part of them. As many callers as keep every
worker busy, each sending its next click when the last one is answered; however long that takes, none is refused. The load
is made on the same machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.backend import ANSWERED, Backend, Outcome, running_backend
from benchmarks.report import machine, percentile_ms, print_table, write_json
from benchmarks.stream import clicks_of

CALLERS_A_WORKER = 2
PATIENT = {"REFCUT_CLICK_QUEUE_WAIT_S": "90", "REFCUT_CLICK_TIMEOUT_S": "90"}


@dataclass(frozen=True)
class Speed:
    """What a measurement came to.

    Attributes:
        waits_s: From click to answer, of each click that was answered.
        not_answered: Number of clicks that ended in another way.
        per_s: Answered clicks per second.
    """

    waits_s: list[float]
    not_answered: int
    per_s: float
    COLUMNS: ClassVar = ("clicks", "clicks/s", "ratio", "not answered", "p50 ms", "p95 ms")

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], seconds: float) -> Speed:
        """The speed of clicks that were sent and answered within so many seconds."""
        waits_s = [outcome.seconds for outcome in outcomes if outcome.reason == ANSWERED]
        return cls(waits_s, len(outcomes) - len(waits_s), len(waits_s) / seconds)

    def columns(self, first: Speed) -> list[object]:
        """The row of a table; the ratio is that to another measurement."""
        ratio = self.per_s / first.per_s if first.per_s else 0.0
        speed = [len(self.waits_s), f"{self.per_s:.2f}", f"{ratio:.2f}", self.not_answered]
        return [*speed, percentile_ms(self.waits_s, 50), percentile_ms(self.waits_s, 95)]


def click_until(backend: Backend, annotator: int, end: float) -> list[Outcome]:
    """One caller's clicks, one after the other."""
    outcomes: list[Outcome] = []
    for click in clicks_of(annotator):
        outcomes.append(backend.click(click))
        if time.monotonic() > end:
            break
    return outcomes


def measure(workers: int, callers: int, warm_up_s: float, seconds: float) -> list[Outcome]:
    """Outcomes of the clicks that were sent after the warm-up and answered before the end."""
    with running_backend(workers, more=PATIENT) as backend, ThreadPoolExecutor(callers) as pool:
        began = time.monotonic() + warm_up_s
        end = began + seconds
        replies = [pool.submit(click_until, backend, number, end) for number in range(callers)]
        return answered_within([reply.result() for reply in replies], began, end)


def answered_within(
    outcomes_of_callers: Sequence[Sequence[Outcome]], began: float, end: float
) -> list[Outcome]:
    """Outcomes of the clicks of all callers that were sent and answered between two times (`time.monotonic()`)."""
    outcomes = [outcome for outcomes in outcomes_of_callers for outcome in outcomes]
    return [
        outcome for outcome in outcomes if outcome.sent >= began and outcome.sent + outcome.seconds <= end
    ]


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warm-up-s", type=float, default=8.0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    callers = CALLERS_A_WORKER * max(arguments.workers)
    speeds = {
        workers: Speed.of(
            measure(workers, callers, arguments.warm_up_s, arguments.seconds), arguments.seconds
        )
        for workers in arguments.workers
    }
    first = speeds[arguments.workers[0]]
    rows = [[f"{workers} worker(s)", *speed.columns(first)] for workers, speed in speeds.items()]
    print(f"{machine()}, {callers} callers")
    print_table(["", *Speed.COLUMNS], rows)
    write_json(arguments.json, {"clicks_per_s": {workers: speed.per_s for workers, speed in speeds.items()}})


if __name__ == "__main__":
    main()
