"""Real training workers on a real Redis, killed and stopped in the middle of their work."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from redis import Redis

from refcut_backend.queue.rq_jobs import TRAINING_QUEUE, open_queue
from refcut_backend.training.runs import Outcome, RequestedBy, Run, Stage
from refcut_backend.training.trigger import TrainingRules
from tests.refcut_backend.training.test_scheduler import thread_on
from tests.support.fake_learner import PARENT
from tests.support.forked_processes import ForkedProcess
from tests.support.training_world import World
from tests.support.worker_farm import GENEROUS_S, wait_for

SLOW = {"steps": 12, "step_s": 0.1, "checkpoint_every": 3}


class Trainers:
    """Training workers around a stand-in learner, and a web process' thread that looks after them."""

    def __init__(self, world: World, redis_url: str, connection: Redis) -> None:
        self.world = world
        self.connection = connection
        self._environment = os.environ | {
            "REFCUT_REDIS_URL": redis_url,
            "REFCUT_STATE_DIR": str(world.folder),
            "FAKE_LEARNER": json.dumps(SLOW),
        }
        self.processes: list[ForkedProcess] = []

    def start(self) -> ForkedProcess:
        name = f"trainer-{len(self.processes)}"
        module = "tests.support.fake_learner"
        self.processes.append(ForkedProcess(module, "--name", name, environment=self._environment))
        return self.processes[-1]

    def request(self) -> str:
        run, _ = self.world.runs.request(7, RequestedBy.COMMAND)
        self.look()
        return run.id

    def look(self, silent_s: float = 30.0) -> None:
        thread = thread_on(self.world, self.connection, TrainingRules(0, 0), silent_s)
        thread.look()
        thread.stop()

    def run(self, run_id: str) -> Run:
        run = self.world.runs.of(run_id)
        assert run is not None
        return run

    def wait_for_step(self, run_id: str, step: int) -> None:
        wait_for(lambda: step in [s for _, s in self.world.learner.computed()], f"step {step} is computed")

    def wait_for_end(self, run_id: str) -> Run:
        wait_for(lambda: self.run(run_id).has_ended, "the training has ended")
        return self.run(run_id)


@pytest.fixture
def trainers(world, redis_url, connection) -> Iterator[Trainers]:
    world.annotate_many(20)
    trainers = Trainers(world, redis_url, connection)
    yield trainers
    for process in trainers.processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_training_worker_trains_and_stays_for_the_next_one(trainers):
    worker = trainers.start()
    for _ in range(2):
        ended = trainers.wait_for_end(trainers.request())
        assert (ended.outcome, ended.attempt) == (Outcome.PROMOTED, 1)
    assert worker.poll() is None


@pytest.mark.slow
def test_a_killed_workers_training_is_rerun_once_from_its_last_checkpoint(trainers):
    killed = trainers.start()
    run_id = trainers.request()
    trainers.wait_for_step(run_id, 5)
    killed.kill()
    killed.wait()
    done = max(step for _, step in trainers.world.learner.computed())
    trainers.start()
    trainers.look(silent_s=-1.0)
    ended = trainers.wait_for_end(run_id)
    assert (ended.outcome, ended.attempt) == (Outcome.PROMOTED, 2)
    again = [step for pid, step in trainers.world.learner.computed() if pid != killed.pid]
    assert again == list(range(done - done % 3 + 1, 13))


def test_a_training_whose_second_worker_is_killed_too_has_failed_and_nothing_changed(trainers):
    run_id = trainers.request()
    for step in (2, 5):
        worker = trainers.start()
        trainers.wait_for_step(run_id, step)
        worker.kill()
        worker.wait()
        trainers.look(silent_s=-1.0)
    ended = trainers.run(run_id)
    assert (ended.stage, ended.outcome) == (Stage.FAILED, Outcome.FAILED)
    assert trainers.world.learner.serving(7).version == PARENT
    assert trainers.world.counts().new == 20


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_stores_its_training_and_puts_it_back_and_another_goes_on(trainers, signum):
    first = trainers.start()
    run_id = trainers.request()
    trainers.wait_for_step(run_id, 4)
    first.send_signal(signum)
    assert first.wait(GENEROUS_S) == 0
    run = trainers.run(run_id)
    assert (run.stage, run.worker, run.has_ended) == (Stage.QUEUED, None, False)
    assert open_queue(TRAINING_QUEUE, trainers.connection).get_job_ids() == [f"{run_id}-1"]
    trainers.start()
    assert trainers.wait_for_end(run_id).outcome is Outcome.PROMOTED
    steps = [step for _, step in trainers.world.learner.computed()]
    assert sorted(set(steps)) == list(range(1, 13))
    assert len(steps) <= 12 + SLOW["checkpoint_every"]


@pytest.mark.slow
def test_a_worker_that_computes_for_long_without_looking_still_stops_in_time(trainers):
    trainers._environment["FAKE_LEARNER"] = json.dumps({"steps": 2, "step_s": 600})
    worker = trainers.start()
    run_id = trainers.request()
    wait_for(lambda: trainers.run(run_id).stage is Stage.TRAINING, "it trains")
    worker.terminate()
    assert worker.wait(GENEROUS_S) == 0
    assert (trainers.run(run_id).stage, trainers.run(run_id).worker) == (Stage.QUEUED, None)


@pytest.mark.slow
def test_a_training_outlives_redis(trainers):
    """Row 8: what was being computed goes on, what waited is put back."""
    trainers.start()
    run_id = trainers.request()
    trainers.wait_for_step(run_id, 2)
    trainers.connection.flushall()
    assert trainers.wait_for_end(run_id).outcome is Outcome.PROMOTED


def test_a_run_that_version_0_1_0_left_in_redis_is_trained_under_its_old_name(trainers):
    run_id = trainers.request()
    queue = open_queue(TRAINING_QUEUE, trainers.connection)
    queue.empty()
    queue.enqueue_call("refcut_backend.training.training_job.run_training_job", args=(run_id,))
    trainers.start()
    assert trainers.wait_for_end(run_id).outcome is Outcome.PROMOTED


def test_two_workers_never_compute_one_run(trainers):
    trainers.start()
    trainers.start()
    run_id = trainers.request()
    queue = open_queue(TRAINING_QUEUE, trainers.connection)
    for number in range(4):
        queue.enqueue_call(
            "refcut_backend.training.worker.run_training_job", args=(run_id,), job_id=f"again-{number}"
        )
    assert trainers.wait_for_end(run_id).attempt == 1
    assert len({pid for pid, _ in trainers.world.learner.computed()}) == 1


def test_a_worker_taken_for_dead_that_lives_is_not_disturbed_by_another(world, trainers):
    """It still writes to the run's folder: the file lock says so."""
    run, _ = world.runs.request(7, RequestedBy.COMMAND)
    entered, leave = threading.Event(), threading.Event()

    def wait_in_step(step: int) -> None:
        entered.set()
        leave.wait(GENEROUS_S)

    world.learner.on_step = wait_in_step
    sleeper = threading.Thread(target=world.worker("sleeper").work_on, args=(run.id,))
    sleeper.start()
    assert entered.wait(GENEROUS_S)
    world.runs.give_up_silent(-1.0)
    world.worker("other").work_on(run.id)
    assert trainers.run(run.id).worker is None
    leave.set()
    sleeper.join()
    assert trainers.run(run.id).has_ended is False
    world.learner.on_step = lambda step: None
    world.worker("other").work_on(run.id)
    assert trainers.run(run.id).outcome is Outcome.PROMOTED


def test_forged_and_unknown_runs_are_passed_over(world):
    for run_id in ("", "../../etc", "20260101-000000-abcdef", "x" * 1000):
        world.worker().work_on(run_id)
    assert not world.settings.training_dir.exists()
