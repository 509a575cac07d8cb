from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty

from refcut_backend.core.clicks import PercentClick
from refcut_backend.errors import ClickTimeoutError, ConfigError, QueueUnavailableError, RefCutError
from refcut_backend.jobs.click_job import CLICK_FUNCTION, CLICK_QUEUE, ClickAnswer, ClickJob
from refcut_backend.jobs.click_queue import ClickQueue
from refcut_backend.jobs.redis_server import EmbeddedRedis, check_redis, connect_redis
from refcut_backend.worker import run_click

JOB = ClickJob(1, 2, "/a.jpg", "Door", (PercentClick(10, 20, True),), (4,))


class FakeEngine:
    """Answers with the job's own clicks, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def answer(self, job: ClickJob) -> ClickAnswer:
        if self.error:
            raise self.error
        return ClickAnswer(width=3, height=2, rle=[1, 2, 3], score=0.5, reference_versions=("v",))


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


def work_once(connection: Redis, engine: FakeEngine) -> threading.Thread:
    """One job on a thread of this process; signals only reach main threads, so the limit is a timer here."""

    class ThreadWorker(SimpleWorker):
        death_penalty_class = TimerDeathPenalty

        def _install_signal_handlers(self) -> None:
            pass

    run_click.serve_with(engine)  # type: ignore[arg-type]
    queue = Queue(CLICK_QUEUE, connection=connection, serializer=JSONSerializer)
    worker = ThreadWorker([queue], connection=connection, serializer=JSONSerializer)
    thread = threading.Thread(target=lambda: worker.work(max_jobs=1, logging_level="ERROR"))
    thread.start()
    return thread


def test_a_click_travels_to_a_worker_and_back(connection):
    thread = work_once(connection, FakeEngine())
    answer = ClickQueue(connection, timeout_s=5).ask(JOB)
    thread.join()
    assert answer == ClickAnswer(width=3, height=2, rle=[1, 2, 3], score=0.5, reference_versions=("v",))


def test_an_expected_problem_comes_back_with_its_reason(connection):
    thread = work_once(connection, FakeEngine(RefCutError("no picture", hint="look")))
    answer = ClickQueue(connection, timeout_s=5).ask(JOB)
    thread.join()
    assert (answer.error_code, answer.error_message) == ("error", "no picture; look")


def test_an_unexpected_failure_is_an_error_for_the_caller_without_a_traceback(connection):
    thread = work_once(connection, FakeEngine(KeyError("secret-inside")))
    with pytest.raises(RefCutError) as error:
        ClickQueue(connection, timeout_s=5).ask(JOB)
    thread.join()
    assert "secret-inside" not in str(error.value)


def test_a_click_that_nobody_answers_times_out_and_is_not_computed_later(connection):
    queue = ClickQueue(connection, timeout_s=1)
    with pytest.raises(ClickTimeoutError):
        queue.ask(JOB)
    assert Queue(CLICK_QUEUE, connection=connection, serializer=JSONSerializer).count == 0


def test_a_job_is_stored_as_json_and_never_as_a_pickle(connection):
    seen: list[bytes] = []

    def look() -> None:
        while not seen:
            seen.extend(filter(None, (connection.hget(key, "data") for key in connection.keys("rq:job:*"))))

    thread = threading.Thread(target=look)
    thread.start()
    with pytest.raises(ClickTimeoutError):
        ClickQueue(connection, timeout_s=1).ask(JOB)
    thread.join()
    function, _, (job,), _ = json.loads(zlib.decompress(seen[0]))
    assert function == CLICK_FUNCTION
    assert ClickJob.from_json(job) == JOB


def test_redis_that_is_gone_is_unavailable_and_not_a_hang():
    queue = ClickQueue(connect_redis("unix:///nowhere/redis.sock"), timeout_s=5)
    assert not queue.is_reachable()
    with pytest.raises(QueueUnavailableError):
        queue.ask(JOB)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:9", "nonsense"])
def test_a_redis_that_does_not_answer_at_the_start_is_a_clear_error(url):
    with pytest.raises(ConfigError, match="REFCUT_REDIS_URL"):
        check_redis(url)


def test_the_embedded_redis_leaves_no_process_behind():
    with EmbeddedRedis() as server:
        check_redis(server.url)
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
