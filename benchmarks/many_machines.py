"""Clicks a second when workers are spread over machines: `python -m benchmarks.many_machines [--cores 0.7]`.

Each machine of workers is simulated by a quota of processor time. Redis, the web server and the callers run outside of
these quotas, so keep some of the real cores free for them. What a network between real machines adds is not simulated:
Redis is reached over the loopback.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.backend import Backend, Outcome, running_backend, wait_until_ready
from benchmarks.many_workers import CALLERS_A_WORKER, PATIENT, Speed, answered_within, click_until
from benchmarks.processor_quota import machine_with
from benchmarks.report import machine, print_table, write_json

LAYOUTS = ((1, 1), (1, 2), (2, 2), (2, 4))
"""Machines, and workers on all of them together."""
STOP_LIMIT_S = 60.0


@contextmanager
def workers_on_machines(backend: Backend, machines: int, workers: int, cores: float) -> Iterator[None]:
    """Workers that are ready for clicks.

    Args:
        backend: A web server without workers, and its Redis.
        machines: Number of machines of workers.
        workers: Number of workers; the machines take turns.
        cores: Quota of each machine.
    """
    with ExitStack() as stack:
        places = [
            stack.enter_context(machine_with(f"refcut-machine-{number}", cores)) for number in range(machines)
        ]
        command = [sys.executable, "-m", "refcut_backend", "worker"]
        environment = os.environ | dict(backend.environment)
        processes = [
            places[number % machines].start(command, environment, backend.log) for number in range(workers)
        ]
        try:
            wait_until_ready(backend, workers)
            yield
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(STOP_LIMIT_S)


def measure(
    machines: int, workers: int, cores: float, callers: int, warm_up_s: float, seconds: float
) -> list[Outcome]:
    """Outcomes of the clicks that were sent after the warm-up and answered before the end."""
    with (
        running_backend(0, more=PATIENT, command="serve") as backend,
        workers_on_machines(backend, machines, workers, cores),
        ThreadPoolExecutor(callers) as pool,
    ):
        began = time.monotonic() + warm_up_s
        end = began + seconds
        replies = [pool.submit(click_until, backend, number, end) for number in range(callers)]
        return answered_within([reply.result() for reply in replies], began, end)


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=float, default=0.7, help="quota of each machine of workers")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--warm-up-s", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each layout, by turns")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    callers = CALLERS_A_WORKER * max(workers for _, workers in LAYOUTS)
    outcomes: dict[tuple[int, int], list[Outcome]] = {layout: [] for layout in LAYOUTS}
    for _ in range(arguments.rounds):
        for machines, workers in LAYOUTS:
            outcomes[machines, workers] += measure(
                machines, workers, arguments.cores, callers, arguments.warm_up_s, arguments.seconds
            )
    speeds = {
        layout: Speed.of(found, arguments.seconds * arguments.rounds) for layout, found in outcomes.items()
    }
    rows = [[*layout, *speed.columns(speeds[LAYOUTS[0]])] for layout, speed in speeds.items()]
    print(f"{machine()}, {callers} callers, {arguments.cores} cores a machine")
    print_table(["machines", "workers", *Speed.COLUMNS], rows)
    rates = {f"{m} machines, {w} workers": speed.per_s for (m, w), speed in speeds.items()}
    write_json(arguments.json, {"clicks_per_s": rates})


if __name__ == "__main__":
    main()
