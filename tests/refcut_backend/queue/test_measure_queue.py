"""Measurements over the real queue, with real worker processes around a fake model."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from refcut_backend.errors import ClickTimeoutError
from refcut_backend.queue.measure_queue import MeasureAnswer, MeasuredSet, MeasureJob, MeasureQueue
from refcut_backend.queue.messages import LabelToFind, PrelabelJob
from refcut_backend.queue.prelabel_queue import PrelabelQueue
from refcut_backend.queue.redis import connect_redis
from refcut_backend.queue.rq_jobs import MEASURE_QUEUE, open_queue
from tests.support.worker_farm import GENEROUS_S, WorkerFarm, click, wait_for

QUEUES = ("--queues", "clicks,prelabel,measure")
SETS = ((), (1,), (2, 3))


def mask(task: int, *sets: tuple[int, ...], image: str = "/a.jpg") -> MeasureJob:
    return MeasureJob(1, task, image, [1, 2, 255], 60, 40, sets or SETS)


@pytest.fixture
def queue(redis_url: str, connection) -> MeasureQueue:
    return MeasureQueue(connect_redis(redis_url))


@pytest.fixture
def callers():
    with ThreadPoolExecutor(4) as callers:
        yield callers


def ask(callers: ThreadPoolExecutor, queue: MeasureQueue, job: MeasureJob) -> Future[MeasureAnswer]:
    return callers.submit(queue.ask, job, time.monotonic() + 2 * GENEROUS_S)


def test_job_and_answer_cross_the_queue_as_json():
    job = mask(3)
    assert MeasureJob.from_json(json.loads(json.dumps(job.to_json()))) == job
    answer = MeasureAnswer((MeasuredSet(0.25), MeasuredSet(None, "lost")), "image", "s14")
    assert MeasureAnswer.from_json(json.loads(json.dumps(answer.to_json()))) == answer
    with pytest.raises(ValueError, match="this worker reads"):
        MeasureJob.from_json(job.to_json() | {"format": 99})
    with pytest.raises(ValueError, match="a measurement in Redis cannot be read"):
        MeasureAnswer.from_json({"measured": [{"iou": 1.5}]})


def test_a_worker_measures_all_sets_and_nothing_stays_in_redis(farm: WorkerFarm, queue, callers):
    farm.start_worker(*QUEUES)
    answer = ask(callers, queue, mask(1)).result()
    assert answer.measured == (MeasuredSet(0.5),) * 3
    assert (answer.image, answer.model_version) == ("image", "s14-9bec7961")
    assert not list(farm.connection.scan_iter("refcut:ticket:*"))
    assert not list(farm.connection.scan_iter("rq:results:*"))


def test_a_click_goes_before_a_measurement_and_what_was_measured_is_kept(farm: WorkerFarm, queue, callers):
    farm.start_worker(*QUEUES)
    slow = ask(callers, queue, mask(1, image="/wait for"))
    wait_for(lambda: "mask 1 1" in farm.computed(), "the second set is in work")
    assert farm.ask_and_wait(click("mask", "a", name="click")).reason == "answered"
    answer = slow.result()
    assert (answer.measured, answer.error_code) == ((MeasuredSet(0.5),), None)
    assert farm.computed() == ["mask 1 0", "mask 1 1", "click"]


def test_clicks_and_tasks_to_pre_label_are_taken_first(farm: WorkerFarm, queue, callers):
    measured = ask(callers, queue, mask(1, ()))
    wait_for(lambda: open_queue(MEASURE_QUEUE, farm.connection).count == 1, "it waits")
    task = PrelabelJob(1, 2, (LabelToFind("Wheel", "image", "/a.jpg", (4,)),))
    prelabels = PrelabelQueue(connect_redis(farm.redis_url))
    found = callers.submit(prelabels.ask, task, time.monotonic() + 2 * GENEROUS_S)
    wait_for(lambda: open_queue("prelabel", farm.connection).count == 1, "a task waits")
    clicked = farm.ask_waiting(click("mask", "a", name="click"))
    farm.start_worker(*QUEUES)
    assert clicked.result().reason == "answered"
    assert found.result().found
    assert measured.result().measured
    assert farm.computed() == ["click", "task 2 Wheel", "mask 1 0"]


def test_a_measurement_without_a_waiting_caller_is_not_computed(farm: WorkerFarm, queue):
    with pytest.raises(ClickTimeoutError):
        queue.ask(mask(1), time.monotonic() + 0.1)
    assert open_queue(MEASURE_QUEUE, farm.connection).count == 0
