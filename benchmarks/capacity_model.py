"""What a queueing model expects of a team: `python -m benchmarks.capacity_model [--service-ms 91 33] [--pause-s 1 3]`.

Nothing is measured. Annotators click, wait for the answer, look at it for a while (`--pause-s`, on average), and click
again. Workers answer the clicks first come, first served. With exponential times that is the finite-source queue
M/M/c//N, which docs/scaling.md writes down. Real clicks vary less than exponential ones, so real waits are shorter.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from benchmarks.report import print_table

SAMPLES = 200_000
MOST_WORKERS = 1000


@dataclass(frozen=True)
class Forecast:
    """What a team can expect.

    Attributes:
        clicks_per_s: Answered clicks of all annotators together.
        utilisation: Share of the workers' time that is spent on clicks.
        mean_s: From a click to its answer, on average.
        p95_s: 95 % of the clicks are answered within this time.
    """

    clicks_per_s: float
    utilisation: float
    mean_s: float
    p95_s: float


def states(annotators: int, workers: int, service_s: float, pause_s: float) -> NDArray[np.float64]:
    """Probability that n clicks wait or are computed, for n = 0 to `annotators`."""
    logs = [0.0]
    for n in range(annotators):
        arrivals = (annotators - n) / pause_s
        answers = min(n + 1, workers) / service_s
        logs.append(logs[-1] + math.log(arrivals / answers))
    weights = np.exp(np.array(logs) - max(logs))
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


def forecast(annotators: int, workers: int, service_s: float, pause_s: float) -> Forecast:
    """Solve the model.

    Args:
        annotators: How many click at the same time.
        workers: How many compute clicks, each one at a time.
        service_s: Time that a worker needs for a click, on average.
        pause_s: Time from an answer to the annotator's next click, on average.
    """
    probabilities = states(annotators, workers, service_s, pause_s)
    busy = float(sum(min(n, workers) * p for n, p in enumerate(probabilities)))
    clicks_per_s = busy / service_s
    # A click that arrives sees the queue of the other annotators.
    seen = states(annotators - 1, workers, service_s, pause_s)
    rng = default_rng(0)
    ahead = rng.choice(annotators, SAMPLES, p=seen)
    phases = np.maximum(ahead - workers + 1, 0)
    waits = np.where(phases > 0, rng.gamma(np.maximum(phases, 1), service_s / workers), 0.0)
    answers = waits + rng.exponential(service_s, SAMPLES)
    return Forecast(
        clicks_per_s, busy / workers, annotators / clicks_per_s - pause_s, float(np.percentile(answers, 95))
    )


def workers_needed(annotators: int, service_s: float, pause_s: float, p95_s: float) -> int:
    """The fewest workers with which 95 % of the clicks are answered within `p95_s`.

    Raises:
        ValueError: If no number of workers is enough.
    """
    low, high = 1, MOST_WORKERS
    if forecast(annotators, high, service_s, pause_s).p95_s > p95_s:
        raise ValueError(f"a click of {service_s} s is too slow for {p95_s} s")
    while low < high:
        middle = (low + high) // 2
        if forecast(annotators, middle, service_s, pause_s).p95_s <= p95_s:
            high = middle
        else:
            low = middle + 1
    return low


def main() -> None:
    """Print the tables; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--service-ms", type=float, nargs="+", default=[91.0, 33.0], help="a worker's time for a click"
    )
    parser.add_argument("--pause-s", type=float, nargs="+", default=[1.0, 3.0], help="answer to next click")
    parser.add_argument("--annotators", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--p95-s", type=float, default=1.0, help="what is wanted")
    arguments = parser.parse_args()
    rows: list[list[object]] = []
    needed: list[list[object]] = []
    for service_ms in arguments.service_ms:
        for pause_s in arguments.pause_s:
            for annotators in arguments.annotators:
                name = f"{service_ms:g} ms, {pause_s:g} s, {annotators} annotators"
                for workers in arguments.workers:
                    found = forecast(annotators, workers, service_ms / 1000, pause_s)
                    cells = (
                        f"{found.clicks_per_s:.1f}",
                        f"{100 * found.utilisation:.0f}",
                        f"{found.mean_s:.2f}",
                    )
                    rows.append([f"{name}, {workers} workers", *cells, f"{found.p95_s:.2f}"])
                count = workers_needed(annotators, service_ms / 1000, pause_s, arguments.p95_s)
                needed.append([name, count])
    print_table(["", "clicks per s", "busy, %", "mean answer, s", "95 % within, s"], rows)
    print()
    print_table(["", f"workers for 95 % within {arguments.p95_s:g} s"], needed)


if __name__ == "__main__":
    main()
