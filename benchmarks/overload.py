"""Offered load against answers: `python -m benchmarks.overload [--model stub|shipped|both] [--seconds 20] [--plot FILE]`.

One worker, eight annotators. Each sends a click on time, whether or not the last one has been answered, at 0.5 to 10
times the rate that the worker can compute. First that rate is measured: as many callers as keep the worker busy, each
sending its next click when the last one is answered.

    stub      clicks take 0.8 s and no processor; web server, queue and worker are the real ones
    shipped   the model that ships; the load is made on the same machine and competes for its cores

A later click of an object costs less than a first one, and one whose predecessors were refused costs more. Clicks per
second are therefore no measure of what could have been computed. The column "of the worker's time" is: the time that the
worker spent on clicks that were answered in time, as a part of what it spends on them when it is busy without a break.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.backend import ANSWERED, Backend, Outcome, running_backend
from benchmarks.click_load import USUAL_REASONS, OutcomeColumns, seconds_of, send_load
from benchmarks.report import machine, print_table, write_json
from benchmarks.stream import StreamClick, clicks_of
from tests.support.recorded import LABEL_CONFIG

STUB_S = 0.8
STUB_LABEL = f"sleep {STUB_S}"
"""What the fake worker does for a click with this label."""
FACTORS = (0.5, 1.0, 1.5, 2.0, 4.0, 10.0)
CALLERS = 3
"""That many keep one worker busy: one click is computed while the others are on their way."""
WORKER_PHASES = ("image", "references", "network", "encoding")
MODELS = ("stub", "shipped")


@dataclass(frozen=True)
class Run:
    """What was sent at one rate, and what became of it.

    Attributes:
        factor: Offered load as a multiple of the measured capacity.
        outcomes: Every click.
        elapsed_s: From the first click to the last answer.
        spent_s: Seconds that the worker spent on clicks that were answered.
    """

    factor: float
    outcomes: list[Outcome]
    elapsed_s: float
    spent_s: float

    @property
    def useful(self) -> float:
        """Part of the time that the worker spent on answered clicks, 0..1."""
        return self.spent_s / self.elapsed_s

    def per_second(self, reason: str) -> float:
        """Clicks that ended for a reason, per second."""
        return len(seconds_of(self.outcomes, reason)) / self.elapsed_s


def stub_clicks(annotator: int) -> Iterator[StreamClick]:
    """The clicks of every other benchmark, as orders for the fake worker."""
    for click in clicks_of(annotator):
        dots = tuple({**dot, "value": {**dot["value"], "keypointlabels": [STUB_LABEL]}} for dot in click.dots)
        yield dataclasses.replace(click, dots=dots)


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        backend: The running backend.
        clicks_of: The clicks of an annotator.
        spent_s: Seconds that the worker has spent so far on clicks that were answered.
    """

    backend: Backend
    clicks_of: Callable[[int], Iterator[StreamClick]]
    spent_s: Callable[[], float]


@contextmanager
def subject(model: str, deadline_s: int) -> Iterator[Subject]:
    """A backend with one worker around a model."""
    if model == "stub":
        with running_backend(1, deadline_s, module="tests.support.fake_run") as backend:
            backend.label_config = LABEL_CONFIG.replace('"Door"', f'"{STUB_LABEL}"')
            yield Subject(backend, stub_clicks, lambda: STUB_S * _samples(backend)["total", "count"])
    else:
        with running_backend(1, deadline_s) as backend:
            yield Subject(
                backend, clicks_of, lambda: sum(_samples(backend).get((p, "sum"), 0.0) for p in WORKER_PHASES)
            )


def _samples(backend: Backend) -> Counter[tuple[str, str]]:
    """Phase and "sum" or "count" to value, over the clicks that were answered since the start."""
    text = backend.client.get("/metrics").text
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(text):
        if family.name == "refcut_click_phase_seconds":
            for sample in family.samples:
                name = sample.name.removeprefix(f"{family.name}_")
                if name in ("sum", "count"):
                    found[sample.labels["phase"], name] += sample.value  # type: ignore[assignment]
    return found


def saturate(subject: Subject, seconds: float) -> Run:
    """Keeps the worker busy without ever refusing a click."""
    end = time.monotonic() + seconds

    def click_until_the_end(annotator: int) -> list[Outcome]:
        outcomes = []
        for click in subject.clicks_of(annotator):
            outcomes.append(subject.backend.click(click))
            if time.monotonic() > end:
                break
        return outcomes

    callers = islice(subject.backend.new_annotators, CALLERS)
    return _timed(subject, 1.0, lambda: _all(callers, click_until_the_end))


def _all(annotators: Iterable[int], click_until_the_end: Callable[[int], list[Outcome]]) -> list[Outcome]:
    with ThreadPoolExecutor(CALLERS) as pool:
        return [outcome for outcomes in pool.map(click_until_the_end, annotators) for outcome in outcomes]


def _timed(subject: Subject, factor: float, send: Callable[[], list[Outcome]]) -> Run:
    before, started = subject.spent_s(), time.monotonic()
    outcomes = send()
    elapsed_s = time.monotonic() - started
    return Run(factor, outcomes, elapsed_s, subject.spent_s() - before)


def offer(subject: Subject, factor: float, clicks_per_s: float, annotators: int, seconds: float) -> Run:
    """All annotators together send `clicks_per_s`."""
    rate = clicks_per_s / annotators
    return _timed(
        subject,
        factor,
        lambda: (
            send_load(subject.backend, f"{factor:g}", annotators, rate, seconds, subject.clicks_of).outcomes
        ),
    )


def print_runs(runs: Sequence[Run], saturated: Run, deadline_s: float) -> None:
    """Print one table row per load."""
    columns = OutcomeColumns([run.outcomes for run in runs], deadline_s)
    rows = [
        [
            f"{run.factor:g}",
            *columns.cells(run.outcomes),
            f"{run.per_second(ANSWERED):.2f}",
            f"{run.useful / saturated.useful:.0%}",
        ]
        for run in runs
    ]
    print_table(["load", *columns.titles, "answered/s", "of the worker's time"], rows)


def plot(path: Path, curves: dict[str, tuple[Run, list[Run]]]) -> None:
    """Draw offered load against what became of the clicks, one picture per model. Needs matplotlib."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(6 * len(curves), 4), squeeze=False)
    for (model, (saturated, runs)), axis in zip(curves.items(), axes[0], strict=True):
        capacity = saturated.per_second(ANSWERED)
        offered = [run.factor * capacity for run in runs]
        for reason in USUAL_REASONS:
            axis.plot(offered, [run.per_second(reason) for run in runs], "o-", label=reason)
        axis.axhline(capacity, color="grey", linestyle=":", label="measured capacity")
        axis.set(title=model, xlabel="clicks per second, offered", ylabel="clicks per second", xscale="log")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=[*MODELS, "both"], default="both")
    parser.add_argument("--factors", type=float, nargs="+", default=list(FACTORS))
    parser.add_argument("--annotators", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0, help="of every run")
    parser.add_argument("--deadline-s", type=int, default=8)
    parser.add_argument("--plot", type=Path, help="file for the curves, .svg or .png; needs matplotlib")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    curves: dict[str, tuple[Run, list[Run]]] = {}
    print(f"{machine()}, 1 worker, {arguments.annotators} annotators, deadline {arguments.deadline_s} s")
    for model in MODELS if arguments.model == "both" else (arguments.model,):
        with subject(model, arguments.deadline_s) as measured:
            saturate(measured, min(5.0, arguments.seconds))  # warm-up
            saturated = saturate(measured, arguments.seconds)
            capacity = saturated.per_second(ANSWERED)
            if not capacity:
                raise SystemExit(
                    f"{model}: no click was answered: {Counter(o.reason for o in saturated.outcomes)}"
                )
            runs = [
                offer(measured, factor, factor * capacity, arguments.annotators, arguments.seconds)
                for factor in arguments.factors
            ]
        curves[model] = saturated, runs
        print(f"\n{model}: {capacity:.2f} clicks/s, {len(saturated.outcomes)} clicks; ", end="")
        print(f"busy without a break it spends {saturated.useful:.0%} of its time on answers\n")
        print_runs(runs, saturated, arguments.deadline_s)
    if arguments.plot is not None:
        try:
            plot(arguments.plot, curves)
        except ImportError:
            print("\nno curve: matplotlib is not installed")
    figures = {model: [asdict(run) for run in runs] for model, (_, runs) in curves.items()}
    write_json(arguments.json, {"arguments": str(vars(arguments)), "runs": figures})


if __name__ == "__main__":
    main()
