from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from sqlalchemy import Engine

from refcut_backend.training import progress
from refcut_backend.training.progress import CURVE_POINTS, RunReport
from refcut_backend.training.runs import Claim, RequestedBy, Stage, TrainingRuns

PROJECT = 7


@pytest.fixture(autouse=True)
def every_report_is_written(monkeypatch) -> None:
    monkeypatch.setattr(progress, "WRITE_EVERY_S", 0.0)


@pytest.fixture
def runs(engine: Engine) -> TrainingRuns:
    return TrainingRuns(engine)


def claimed(runs: TrainingRuns) -> Claim:
    run, _ = runs.request(PROJECT, RequestedBy.COMMAND)
    claim = runs.claim(run.id, "worker")
    assert claim is not None
    return claim


def report(runs: TrainingRuns, claim: Claim, steps: Sequence[int]) -> None:
    tell = RunReport(runs, claim, threading.Event())
    for step in steps:
        tell(Stage.TRAINING, step, 10_000, metrics={"loss": 1.0, "iou": step / 10_000})


def curve_of(runs: TrainingRuns, claim: Claim) -> list[Sequence[float | None]]:
    run = runs.of(claim.run_id)
    assert run is not None
    return list(run.curve)


def test_the_curve_of_a_long_training_stays_short_and_keeps_its_ends(runs: TrainingRuns) -> None:
    claim = claimed(runs)
    report(runs, claim, range(3 * CURVE_POINTS))
    curve = curve_of(runs, claim)
    assert CURVE_POINTS / 2 <= len(curve) <= CURVE_POINTS
    steps = [point[0] for point in curve]
    assert (steps[0], steps[-1]) == (0, 3 * CURVE_POINTS - 1)
    assert steps == sorted(set(steps), key=lambda step: step or 0)
    assert curve[-1][1:] == [1.0, steps[-1] / 10_000, None]


def test_an_attempt_that_resumes_continues_the_curve_from_its_checkpoint(runs: TrainingRuns) -> None:
    claim = claimed(runs)
    report(runs, claim, [1, 2, 3, 4])
    assert runs.give_back(claim)
    again = runs.claim(claim.run_id, "another worker")
    assert again is not None
    report(runs, again, [3, 4, 5])
    assert [point[0] for point in curve_of(runs, again)] == [1, 2, 3, 4, 5]


def test_other_stages_leave_the_curve_as_it_is(runs: TrainingRuns) -> None:
    claim = claimed(runs)
    report(runs, claim, [1, 2])
    RunReport(runs, claim, threading.Event())(Stage.COMPARING, 1, 5)
    assert len(curve_of(runs, claim)) == 2
