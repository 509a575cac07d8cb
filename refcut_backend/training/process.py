"""Builds the process of a training worker from the settings. It imports torch only when a run has data."""

from __future__ import annotations

import threading
from collections.abc import Callable

from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.inference.work_loop import work
from refcut_backend.queue.background_queues import TrainingQueue
from refcut_backend.queue.redis import connect_redis
from refcut_backend.queue.rq_jobs import TRAINING_QUEUE
from refcut_backend.references.event_log import EventLog
from refcut_backend.settings import Settings
from refcut_backend.training.learner import Learner
from refcut_backend.training.new_annotations import NewAnnotations
from refcut_backend.training.pipeline import ProjectTraining
from refcut_backend.training.requests import TrainingRequests
from refcut_backend.training.runs import TrainingRuns
from refcut_backend.training.snapshot import SnapshotMaker
from refcut_backend.training.worker import TrainingWorker, train_with

LOCK_TIMEOUT_MS = 20_000
"""Time to wait for another process that writes to the database; a training can wait longer than a click."""


def load_learner(settings: Settings) -> Learner:
    """The learner over `model/`. Importing it imports torch."""
    from refcut_backend.training.refcut_learner import ModelLearner

    return ModelLearner(settings)


def run_training_worker(
    settings: Settings,
    redis_url: str,
    name: str,
    make_learner: Callable[[Settings], Learner] = load_learner,
) -> int:
    """Run a training worker until SIGTERM.

    Args:
        settings: From the environment.
        redis_url: The Redis with the queue of trainings.
        name: Unique name of the worker.
        make_learner: Called when a run has enough data.

    Returns:
        The exit status, as of `work`.

    Raises:
        RefCutError: If the worker cannot start.
    """
    # For this user only: snapshots hold photographs and annotations.
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = open_database(settings.database, LOCK_TIMEOUT_MS)
    runs = TrainingRuns(engine)
    queue = TrainingQueue(connect_redis(redis_url), settings.train_timeout_s)
    projects = Projects.of(engine, settings)
    requests = TrainingRequests(runs, projects, EventLog(engine), queue)

    def put_back(run_id: str) -> None:
        run = runs.of(run_id)
        if run is not None:
            requests.put_on_queue(run)

    stop_event = threading.Event()
    training = ProjectTraining(
        settings.training_dir,
        SnapshotMaker(settings, engine),
        NewAnnotations(engine),
        settings.train_keep_runs,
    )
    train_with(TrainingWorker(name, runs, training, lambda: make_learner(settings), put_back, stop_event))
    return work(redis_url, (TRAINING_QUEUE,), name, None, stop_event)
