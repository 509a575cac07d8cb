"""What a worker does when a job fails, or when its model runs out of memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from refcut_backend.errors import ImageError, OutOfMemoryError
from refcut_backend.inference import jobs
from refcut_backend.inference.jobs import JobRunner, MemoryGuard
from refcut_backend.queue.messages import ClickAnswer, ClickJob, PrelabelAnswer, PrelabelJob, PreloadJob
from refcut_backend.queue.rq_jobs import JobTimeoutError
from tests.support.worker_farm import click

JOB = click("mask")
ANSWER = ClickAnswer(width=1, height=1)


class Engine:
    """Raises the given errors, one per call, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.forgot = 0
        self.repaired = 0

    @property
    def device(self) -> str:
        return "none"

    def answer(self, job: ClickJob) -> ClickAnswer:
        if self.errors:
            raise self.errors.pop(0)
        return ANSWER

    def preload(self, job: PreloadJob, must_stop: Callable[[], bool]) -> bool:
        raise AssertionError(job)

    def forget(self) -> None:
        self.forgot += 1

    def repair(self) -> None:
        self.repaired += 1


def real_allocation_failure() -> RuntimeError:
    """torch's own error for main memory, as this version words it."""
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    return error.value


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        MemoryError(),
        real_allocation_failure(),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:20]}",
)
def test_a_click_that_memory_was_too_short_for_is_tried_once_more_with_empty_caches(error):
    engine = Engine(error)
    assert MemoryGuard(engine).answer(JOB) == ANSWER
    assert engine.forgot == 1


def test_memory_that_is_short_twice_is_a_reason_and_not_a_crash():
    engine = Engine(MemoryError(), MemoryError())
    with pytest.raises(OutOfMemoryError, match="REFCUT_FEATURE_CACHE_MAX_BYTES"):
        MemoryGuard(engine).answer(JOB)
    assert engine.forgot == 2


@pytest.mark.slow
def test_a_worker_needs_a_restart_after_three_failures_in_a_row_and_not_before():
    engine = Engine(*[MemoryError() for _ in range(4)])
    care = MemoryGuard(engine)
    for _ in range(2):
        with pytest.raises(OutOfMemoryError):
            care.answer(JOB)
    care.answer(JOB)
    engine.errors = [MemoryError() for _ in range(6)]
    for failures in range(3):
        assert not care.needs_restart, failures
        with pytest.raises(OutOfMemoryError):
            care.answer(JOB)
    assert care.needs_restart


def test_other_failures_are_not_taken_for_short_memory():
    engine = Engine(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        MemoryGuard(engine).answer(JOB)
    assert engine.forgot == 0


class Finder:
    """Raises an error for every task."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def look(self, job: PrelabelJob, should_yield: Callable[[], bool]) -> PrelabelAnswer:
        raise self._error


FAILURES = pytest.mark.parametrize(
    ("error", "code", "forgot", "repaired"),
    [
        (ImageError("the image is damaged"), "image", 0, 0),
        (JobTimeoutError("too long"), "timeout", 0, 1),
        (KeyError("secret-inside"), "error", 1, 0),
    ],
    ids=["an expected error", "the time limit", "an unexpected error"],
)


@FAILURES
def test_a_click_that_fails_is_answered_with_its_reason_and_a_cut_off_repairs_the_caches_instead_of_emptying_them(
    error, code, forgot, repaired
):
    engine = Engine(error)
    runner = JobRunner(engine, Finder(error), lambda: False, lambda: False)
    answer = ClickAnswer.from_json(runner.click(JOB.to_json()))
    assert (answer.error_code, engine.forgot, engine.repaired) == (code, forgot, repaired)
    assert "secret-inside" not in str(answer)


@FAILURES
def test_a_task_that_fails_is_answered_with_its_reason_and_a_cut_off_repairs_the_caches_instead_of_emptying_them(
    error, code, forgot, repaired
):
    engine = Engine()
    runner = JobRunner(engine, Finder(error), lambda: False, lambda: False)
    answer = PrelabelAnswer.from_json(runner.prelabel(PrelabelJob(1, 2, ()).to_json()))
    assert (answer.error_code, engine.forgot, engine.repaired) == (code, forgot, repaired)
    assert "secret-inside" not in str(answer)


def test_a_task_that_memory_is_too_short_for_is_a_reason_and_empties_the_caches():
    engine = Engine()
    runner = JobRunner(engine, Finder(MemoryError()), lambda: False, lambda: False)
    assert runner.prelabel(PrelabelJob(1, 2, ()).to_json())["error_code"] == "oom"
    assert engine.forgot == 1


NOT_JOBS = [
    {"format": 99},
    {"clicks": "many"},
    {"clicks": [{"x_percent": "left"}]},
    {"reference_ids": {"a": 1}},
]


@pytest.mark.parametrize("change", NOT_JOBS)
def test_a_click_that_is_of_another_format_or_no_click_is_refused_with_a_reason_and_costs_no_cache(change):
    engine = Engine()
    runner = JobRunner(engine, Finder(KeyError()), lambda: False, lambda: False)
    assert runner.click(JOB.to_json() | change)["error_code"] == "bad_message"
    assert runner.click([])["error_code"] == "bad_message"  # type: ignore[arg-type]
    assert engine.forgot == 0


def test_a_task_or_a_preload_that_is_no_job_is_refused_and_not_an_exception(caplog):
    runner = JobRunner(Engine(), Finder(KeyError()), lambda: False, lambda: False)
    task = PrelabelJob(1, 2, ()).to_json()
    assert runner.prelabel(task | {"format": 99})["error_code"] == "bad_message"
    assert runner.prelabel(task | {"labels": [{"label": 7}]})["error_code"] == "bad_message"
    runner.preload(PreloadJob(1, 2, ()).to_json() | {"image_addresses": 3})
    assert "task not prepared" in caplog.text


def test_a_process_without_a_model_says_how_to_start_a_worker(monkeypatch):
    monkeypatch.setattr(jobs, "_runner", None)
    with pytest.raises(RuntimeError, match="refcut worker"):
        jobs.run_click(JOB.to_json())
