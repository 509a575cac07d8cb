from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty

from refcut_backend.errors import ImageError
from refcut_backend.inference import jobs
from refcut_backend.label_studio.prompts import PercentClick
from refcut_backend.queue.background_queues import MAX_WAITING, PreemptionCheck, PreloadQueue
from refcut_backend.queue.messages import ClickAnswer, ClickJob, PrelabelAnswer, PrelabelJob, PreloadJob
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis
from refcut_backend.queue.rq_jobs import AHEAD_QUEUE, CLICK_FUNCTION, CLICK_QUEUE, MODEL_QUEUES, PRELOAD_QUEUE

CLICK = ClickJob(1, 2, "/a.jpg", "Door", (PercentClick(10, 20, True),))


def preload(task: int) -> PreloadJob:
    return PreloadJob(1, task, ("/a.jpg",), ((4, 5),))


class Engine:
    """Records its jobs, in order."""

    def __init__(self) -> None:
        self.computed: list[str] = []
        self.problem: Exception | None = None
        self.must_stop: Callable[[], bool] | None = None
        self.forgotten = False
        self.repaired = False

    @property
    def device(self) -> str:
        return "none"

    def answer(self, job: ClickJob) -> ClickAnswer:
        self.computed.append(f"click {job.task_id}")
        return ClickAnswer()

    def preload(self, job: PreloadJob, must_stop: Callable[[], bool]) -> bool:
        self.computed.append(f"preload {job.task_id}")
        if self.problem is not None:
            raise self.problem
        return not must_stop()

    def forget(self) -> None:
        self.forgotten = True

    def repair(self) -> None:
        self.repaired = True


class NoFinder:
    """These workers are never given a task to pre-label."""

    def look(self, job: PrelabelJob, should_yield: Callable[[], bool]) -> PrelabelAnswer:
        raise AssertionError(job)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with EmbeddedRedis() as server:
        check_redis(server.url)
        yield server.url


@pytest.fixture
def connection(redis_url) -> Iterator[Redis]:
    opened = connect_redis(redis_url)
    opened.flushall()
    yield opened
    opened.close()


def queue(connection: Redis, name: str) -> Queue:
    return Queue(name, connection=connection, serializer=JSONSerializer)


def put_click(connection: Redis) -> None:
    queue(connection, CLICK_QUEUE).enqueue_call(CLICK_FUNCTION, args=(CLICK.to_json(),))


def work_off(connection: Redis, engine: Engine) -> None:
    """Everything on both queues, on a thread of this process; signals only reach main threads."""

    class ThreadWorker(SimpleWorker):
        death_penalty_class = TimerDeathPenalty

        def _install_signal_handlers(self) -> None:
            pass

    click_waits = PreemptionCheck(connection, (CLICK_QUEUE,)).should_yield
    jobs.register(jobs.JobRunner(engine, NoFinder(), click_waits, lambda: False))
    queues = [queue(connection, name) for name in MODEL_QUEUES]
    worker = ThreadWorker(queues, connection=connection, serializer=JSONSerializer)
    thread = threading.Thread(target=lambda: worker.work(burst=True, logging_level="ERROR"))
    thread.start()
    thread.join()


def test_a_task_is_prepared_when_no_click_waits(connection):
    engine = Engine()
    assert PreloadQueue(connection).ask(preload(3))
    work_off(connection, engine)
    assert engine.computed == ["preload 3"]
    assert connection.keys("rq:job:*") == []


def test_nothing_is_requested_while_a_click_waits(connection):
    put_click(connection)
    assert not PreloadQueue(connection).ask(preload(3))
    assert queue(connection, PRELOAD_QUEUE).count == 0


def test_a_click_goes_before_tasks_that_were_opened_earlier(connection):
    engine = Engine()
    for task in (3, 4):
        PreloadQueue(connection).ask(preload(task))
    put_click(connection)
    work_off(connection, engine)
    assert engine.computed == ["click 2", "preload 3", "preload 4"]


def test_a_task_that_may_be_opened_next_is_prepared_after_clicks_and_after_opened_tasks(connection):
    engine = Engine()
    put_click(connection)
    assert PreloadQueue(connection, ahead=True).ask(preload(9))
    queue(connection, CLICK_QUEUE).empty()
    PreloadQueue(connection).ask(preload(3))
    put_click(connection)
    work_off(connection, engine)
    assert engine.computed == ["click 2", "preload 3", "preload 9"]


def test_opened_tasks_do_not_drop_the_one_that_may_be_opened_next(connection):
    PreloadQueue(connection, ahead=True).ask(preload(9))
    for task in range(10):
        PreloadQueue(connection).ask(preload(task))
    assert queue(connection, AHEAD_QUEUE).count == 1


def test_only_the_tasks_opened_last_wait(connection):
    engine = Engine()
    for task in range(10):
        assert PreloadQueue(connection).ask(preload(task))
    assert queue(connection, PRELOAD_QUEUE).count == MAX_WAITING
    assert len(connection.keys("rq:job:*")) == MAX_WAITING
    work_off(connection, engine)
    assert engine.computed == [f"preload {task}" for task in range(10 - MAX_WAITING, 10)]


def test_a_waiting_click_is_seen_while_a_task_is_being_prepared(connection):
    check = PreemptionCheck(connection, (CLICK_QUEUE,))
    assert not check.should_yield()
    put_click(connection)
    assert check.should_yield()


def test_without_redis_nothing_is_requested_and_nothing_raised():
    away = connect_redis("unix:///nowhere/redis.sock")
    assert not PreloadQueue(away).ask(preload(3))
    assert PreemptionCheck(away, (CLICK_QUEUE,)).should_yield()


def test_a_task_that_cannot_be_prepared_is_logged_and_forgotten(connection, caplog):
    engine = Engine()
    engine.problem = ImageError("the file is gone", hint="look")
    PreloadQueue(connection).ask(preload(3))
    work_off(connection, engine)
    (record,) = [record for record in caplog.records if record.message == "task not prepared"]
    assert (record.task, record.problem) == (3, "the file is gone; look")
    assert queue(connection, PRELOAD_QUEUE).count == 0
    assert not engine.forgotten


@pytest.mark.parametrize(
    ("problem", "is_emptied"),
    [(jobs.JobTimeoutError("too long"), False), (RuntimeError("out of memory"), True)],
)
def test_preparing_that_broke_off_leaves_nothing_half_changed_and_the_worker_at_work(
    connection, problem, is_emptied
):
    engine = Engine()
    engine.problem = problem
    PreloadQueue(connection).ask(preload(3))
    work_off(connection, engine)
    assert (engine.repaired, engine.forgotten) == (not is_emptied, is_emptied)
    put_click(connection)
    work_off(connection, engine)
    assert engine.computed == ["preload 3", "click 2"]
