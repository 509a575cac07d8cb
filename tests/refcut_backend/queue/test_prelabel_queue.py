from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from refcut_backend.errors import ClickTimeoutError, QueueUnavailableError, WorkerLostError
from refcut_backend.queue import claims
from refcut_backend.queue.messages import FoundLabel, FoundMask, LabelToFind, PrelabelAnswer, PrelabelJob
from refcut_backend.queue.prelabel_queue import PrelabelQueue
from refcut_backend.queue.redis import connect_redis
from refcut_backend.queue.rq_jobs import PRELABEL_QUEUE, open_queue
from tests.support.worker_farm import GENEROUS_S, WorkerFarm, click, wait_for


def task(number: int, *labels: str, image: str = "/a.jpg") -> PrelabelJob:
    return PrelabelJob(1, number, tuple(LabelToFind(label, "image", image, (4,)) for label in labels))


@pytest.fixture
def queue(redis_url: str, connection) -> PrelabelQueue:
    return PrelabelQueue(connect_redis(redis_url))


@pytest.fixture
def callers():
    with ThreadPoolExecutor(8) as callers:
        yield callers


def ask(callers: ThreadPoolExecutor, queue: PrelabelQueue, job: PrelabelJob) -> Future[PrelabelAnswer]:
    return callers.submit(queue.ask, job, time.monotonic() + 2 * GENEROUS_S)


def test_job_and_answer_cross_the_queue_as_json():
    job = task(3, "Wheel", "Door")
    assert PrelabelJob.from_json(json.loads(json.dumps(job.to_json()))) == job
    masks = (FoundMask([1, 2, 255], 0.25), FoundMask([], 0.125))
    answer = PrelabelAnswer((FoundLabel("Wheel", "image", 4, 2, masks, ("v1",)),), "s14")
    assert PrelabelAnswer.from_json(json.loads(json.dumps(answer.to_json()))) == answer
    with pytest.raises(ValueError, match="this worker reads"):
        PrelabelJob.from_json(job.to_json() | {"format": 99})


def test_what_a_worker_finds_comes_back_and_nothing_stays_in_redis(farm: WorkerFarm, queue, callers):
    farm.start_worker()
    answer = ask(callers, queue, task(1, "Wheel", "Door")).result()
    assert [found.label for found in answer.found] == ["Wheel", "Door"]
    assert not list(farm.connection.scan_iter("refcut:ticket:*"))
    assert not list(farm.connection.scan_iter("rq:results:*"))


def test_a_click_goes_before_a_task_that_is_being_searched(farm: WorkerFarm, queue, callers):
    farm.start_worker()
    slow = ask(callers, queue, task(1, "Wheel", image="/wait for"))
    wait_for(lambda: "task 1 Wheel" in farm.computed(), "the task is looked at")
    assert farm.ask_and_wait(click("mask", "a", name="click")).reason == "answered"
    answer = slow.result()
    assert (answer.found, answer.error_code) == ((), None)
    assert farm.computed() == ["task 1 Wheel", "click"]


def test_a_click_goes_before_tasks_that_wait_and_the_rest_of_a_task_before_other_tasks(
    farm: WorkerFarm, queue, callers
):
    def waiting() -> int:
        return open_queue(PRELABEL_QUEUE, farm.connection).count

    replies = [ask(callers, queue, task(1, "Wheel"))]
    wait_for(lambda: waiting() == 1, "it waits")
    deadline = time.monotonic() + 2 * GENEROUS_S
    replies.append(callers.submit(queue.ask, task(2, "Door"), deadline, is_continuation=True))
    wait_for(lambda: waiting() == 2, "the rest of another waits")
    clicked = farm.ask_waiting(click("mask", "a", name="click"))
    farm.start_worker()
    assert clicked.result().reason == "answered"
    assert all(reply.result().found for reply in replies)
    assert farm.computed() == ["click", "task 2 Door", "task 1 Wheel"]


def test_a_task_without_a_waiting_caller_is_not_computed(farm: WorkerFarm, queue, callers):
    left = ask(callers, queue, task(1, "Wheel"))
    prelabels = open_queue(PRELABEL_QUEUE, farm.connection)
    wait_for(lambda: prelabels.count == 1, "it waits")
    (name,) = prelabels.get_job_ids()
    with farm.connection.pipeline() as pipeline:
        # The caller is blind while it waits: as if it had been killed and its claim had expired.
        claims.delete(pipeline, name)
        pipeline.execute()
    unwanted = prelabels.fetch_job(name)
    assert unwanted is not None
    prelabels.enqueue_call(unwanted.func_name, args=unwanted.args, at_front=True, timeout=60)
    farm.start_worker()
    assert left.result().found
    assert farm.computed() == ["task 1 Wheel"]


@pytest.mark.slow
def test_a_task_whose_worker_dies_is_searched_by_another(farm: WorkerFarm, queue, callers):
    first = farm.start_worker()
    reply = ask(callers, queue, task(1, "Wheel", image="/wait go"))
    wait_for(lambda: farm.computed() == ["task 1 Wheel"], "it is looked at")
    first.kill()
    (farm.folder / "go").touch()
    farm.start_worker()
    assert reply.result().found
    assert farm.computed() == ["task 1 Wheel"] * 2


def test_a_task_that_was_put_back_as_a_worker_took_it_is_answered_by_that_worker(
    farm: WorkerFarm, queue, callers
):
    farm.start_worker()
    reply = ask(callers, queue, task(1, "Wheel", image="/wait go"))
    wait_for(lambda: farm.computed() == ["task 1 Wheel"], "it is looked at")
    (key,) = farm.connection.keys("refcut:ticket:*")
    open_queue(PRELABEL_QUEUE, farm.connection).push_job_id(key.decode().rpartition(":")[2])
    farm.start_worker("--queues", "prelabel")
    wait_for(lambda: open_queue(PRELABEL_QUEUE, farm.connection).count == 0, "another takes it as well")
    (farm.folder / "go").touch()
    assert reply.result().found
    assert farm.computed() == ["task 1 Wheel"]


@pytest.mark.slow
def test_a_task_that_kills_two_workers_is_given_up(farm: WorkerFarm, queue, callers):
    reply = ask(callers, queue, task(1, "Wheel", image="/die"))
    for _ in range(2):
        farm.start_worker(ready=False).process.wait(2 * GENEROUS_S)
    with pytest.raises(WorkerLostError, match="2 workers died"):
        reply.result()
    assert farm.computed() == ["task 1 Wheel"] * 2


def test_a_task_that_an_emptied_redis_lost_is_sent_again(farm: WorkerFarm, queue, callers):
    reply = ask(callers, queue, task(1, "Wheel"))
    wait_for(lambda: open_queue(PRELABEL_QUEUE, farm.connection).count == 1, "it waits")
    farm.connection.flushall()
    farm.start_worker()
    assert reply.result().found


def test_a_damaged_image_is_a_reason(farm: WorkerFarm, queue, callers):
    farm.start_worker()
    answer = ask(callers, queue, task(1, "Wheel", image="/bad")).result()
    assert (answer.error_code, answer.error_message) == ("image", "the image is damaged")


def test_a_wait_ends_at_its_deadline_and_when_it_is_unwanted(farm: WorkerFarm, queue):
    with pytest.raises(ClickTimeoutError):
        queue.ask(task(1, "Wheel"), time.monotonic() + 0.1)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(ClickTimeoutError):
        queue.ask(task(1, "Wheel"), time.monotonic() + GENEROUS_S, cancelled.is_set)
    assert open_queue(PRELABEL_QUEUE, farm.connection).count == 0


def test_without_redis_there_is_a_reason():
    with pytest.raises(QueueUnavailableError):
        PrelabelQueue(connect_redis("redis://127.0.0.1:9")).ask(task(1, "Wheel"), time.monotonic() + 5)
