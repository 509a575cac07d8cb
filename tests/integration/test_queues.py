"""Which work a worker takes, and in which order."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from redis import Redis

from refcut_backend import wiring
from refcut_backend.errors import CANNOT_START
from refcut_backend.queue import claims
from refcut_backend.queue.heartbeats import living_workers
from refcut_backend.queue.rq_jobs import PRELABEL_QUEUE, open_queue
from refcut_backend.settings import Settings
from tests.support.fake_worker import PRELABEL_FUNCTION
from tests.support.recorded import REPOSITORY
from tests.support.worker_farm import GENEROUS_S, WorkerFarm, click, wait_for


def prelabel(farm: WorkerFarm, name: str) -> None:
    with farm.connection.pipeline() as pipeline:
        claims.create(pipeline, name, GENEROUS_S)
        pipeline.execute()
    queue = open_queue(PRELABEL_QUEUE, farm.connection)
    queue.enqueue_call(PRELABEL_FUNCTION, args=(name,), timeout=60, job_id=name)


def test_a_click_overtakes_the_other_work_that_waits(farm):
    for number in range(3):
        prelabel(farm, f"prelabel-{number}")
    reply = farm.ask_waiting(click("mask", "a", name="click"))
    farm.start_worker()
    assert reply.result().reason == "answered"
    wait_for(lambda: len(farm.computed()) == 4, "all is done")
    assert farm.computed() == ["click", "prelabel-0", "prelabel-1", "prelabel-2"]


def test_a_worker_takes_jobs_only_from_its_queues(farm):
    prelabel(farm, "prelabel")
    farm.start_worker("--queues", "clicks")
    assert farm.ask_and_wait(click("mask", "a", name="click")).reason == "answered"
    assert farm.computed() == ["click"]


def test_a_training_worker_needs_no_serving_model(farm):
    command = [sys.executable, "-m", "refcut_backend", "worker", "--queues", "training"]
    settings = {"REFCUT_MODEL_DIR": "/no/such/model", "REFCUT_STATE_DIR": str(farm.folder)}
    process = subprocess.Popen(command, env=farm.environment | settings, cwd=REPOSITORY)
    try:
        wait_for(
            lambda: [w for w in living_workers(farm.connection) if w.ready], "it is ready", 3 * GENEROUS_S
        )
        (worker,) = living_workers(farm.connection)
        assert worker.queues == ("training",)
    finally:
        process.terminate()
        assert process.wait(GENEROUS_S) == 0


def test_a_queue_that_does_not_exist_is_one_clear_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "refcut_backend", "worker", "--queues", "klicks"],
        env=os.environ | {"REFCUT_STATE_DIR": str(tmp_path), "REFCUT_REDIS_URL": "redis://127.0.0.1:9"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=2 * GENEROUS_S,
    )
    assert done.returncode == CANNOT_START
    assert (
        done.stderr
        == "refcut: no such queue: klicks; choose from clicks, warm, ahead, prelabel, measure, training\n"
    )


@pytest.mark.usefixtures("databases_closed")
def test_the_settings_say_how_many_clicks_wait_and_for_how_long(
    tmp_path, connection: Redis, monkeypatch: pytest.MonkeyPatch
):
    opened: list[dict[str, Any]] = []
    open_queue = wiring.ClickQueue

    def recorded(given: Redis, **limits: Any) -> Any:
        opened.append(limits)
        return open_queue(given, **limits)

    monkeypatch.setattr(wiring, "ClickQueue", recorded)
    settings = Settings(state_dir=tmp_path, click_timeout_s=7, click_queue_limit=11, click_queue_wait_s=0.25)
    wiring.wire_backend(settings, connection)
    assert opened == [{"timeout_s": 7, "limit": 11, "longest_wait_s": 0.25}]
