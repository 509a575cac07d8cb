"""What a training does to clicks: `python -m benchmarks.clicks_while_training SNAPSHOT [--seconds 60]`.

Annotators click at a steady rate on a backend as `refcut run` starts it; then a fine-tuning on the snapshot (such as
`refcut train` leaves in the state folder, or `benchmarks.team_snapshot` writes) begins beside it, with the priority and
the threads of a training worker; then it is killed, and the annotators go on. On one machine, one stream of clicks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.backend import ANSWERED, running_backend
from benchmarks.click_load import GRACE_S, Load, seconds_of, send_load
from benchmarks.report import machine, percentile_ms, print_table, write_json
from benchmarks.training_beside import training_beside


def row(load: Load, alone_s: list[float], deadline_s: float) -> list[object]:
    """Return a table row of a load; `alone_s` are the seconds of answered clicks without a training."""
    answered = seconds_of(load.outcomes, ANSWERED)
    late = sum(outcome.seconds > deadline_s + GRACE_S for outcome in load.outcomes)
    ratio = np.percentile(answered, 95) / np.percentile(alone_s, 95)
    times = [percentile_ms(answered, 50), percentile_ms(answered, 95), f"{ratio:.2f}"]
    return [load.name, len(load.outcomes), len(answered), late, *times]


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--annotators", type=int, default=2)
    parser.add_argument("--clicks-per-s", type=float, default=0.5, help="of one annotator")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--deadline-s", type=int, default=8)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    rate = arguments.annotators, arguments.clicks_per_s
    with running_backend(1, arguments.deadline_s) as backend:
        send_load(backend, "warm-up", *rate, 15)
        loads = [send_load(backend, "alone", *rate, arguments.seconds)]
        with training_beside(arguments.snapshot):
            loads.append(send_load(backend, "beside a training", *rate, arguments.seconds))
        loads.append(send_load(backend, "alone again", *rate, arguments.seconds))
    alone_s = seconds_of(loads[0].outcomes, ANSWERED) + seconds_of(loads[2].outcomes, ANSWERED)
    print(f"{machine()}, {arguments.annotators} annotators, {arguments.clicks_per_s:g} clicks/s each")
    columns = ["", "sent", "answered", "after the deadline", "p50 ms", "p95 ms", "p95 times alone"]
    print_table(columns, [row(load, alone_s, arguments.deadline_s) for load in loads])
    write_json(arguments.json, {load.name: seconds_of(load.outcomes, ANSWERED) for load in loads})


if __name__ == "__main__":
    main()
