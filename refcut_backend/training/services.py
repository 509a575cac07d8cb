"""What the web process needs of training. Nothing here imports what learns, nor what makes snapshots."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis
from sqlalchemy import Engine

from refcut_backend.database.projects import Projects
from refcut_backend.queue.background_queues import TrainingQueue
from refcut_backend.references.annotation_states import EventLog
from refcut_backend.settings import Settings
from refcut_backend.training.new_annotations import TrainingNews
from refcut_backend.training.requests import TrainingRequests
from refcut_backend.training.runs import TrainingRuns
from refcut_backend.training.scheduler import TrainingThread, training_thread
from refcut_backend.training.status import TrainingStatus
from refcut_backend.training.trigger import TrainingRules


@dataclass(frozen=True)
class TrainingServices:
    """thread: None where nothing begins or looks after trainings."""

    runs: TrainingRuns
    requests: TrainingRequests
    status: TrainingStatus
    thread: TrainingThread | None = None


def connect_training(
    engine: Engine, settings: Settings, projects: Projects, connection: Redis | None
) -> TrainingServices:
    """On a database and a Redis connection, which need not answer yet; None where Redis is out of reach."""
    runs, news = TrainingRuns(engine), TrainingNews(engine)
    queue = None if connection is None else TrainingQueue(connection, settings.train_timeout_s)
    requests = TrainingRequests(runs, projects, EventLog(engine), queue)
    thread = training_thread(engine, requests, runs, TrainingRules.of(settings))
    return TrainingServices(runs, requests, TrainingStatus(runs, news), thread)
