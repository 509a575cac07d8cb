"""What answering Label Studio takes, connected as the settings say, for whatever server takes the requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis
from sqlalchemy import Engine

from refcut_backend.clicks.history import LOCK_TIMEOUT_MS, ClickMemory
from refcut_backend.clicks.log import OldClicks
from refcut_backend.clicks.options import AnswerRules
from refcut_backend.clicks.preload import TaskOpener
from refcut_backend.clicks.service import AddressHidingSender, ClickService
from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.prelabeling.batch import BatchPrelabeller, PrelabelRules
from refcut_backend.prelabeling.task import TaskPrelabeller
from refcut_backend.queue.background_queues import PreloadQueue, TrainingQueue
from refcut_backend.queue.click_queue import ClickQueue
from refcut_backend.queue.prelabel_queue import PrelabelQueue
from refcut_backend.queue.queue_state import QueueState, read_queue_state
from refcut_backend.references.annotation_states import EventLog
from refcut_backend.references.authors import UserEmails
from refcut_backend.references.reconcile_loop import ReconcileThread, reconcile_thread
from refcut_backend.references.registry import References
from refcut_backend.references.selection import Authors
from refcut_backend.references.webhooks import AnnotationFollower
from refcut_backend.settings import Settings
from refcut_backend.training.new_annotations import NewAnnotations
from refcut_backend.training.requests import TrainingRequests
from refcut_backend.training.runs import TrainingRuns
from refcut_backend.training.scheduler import TrainingThread, training_thread
from refcut_backend.training.status import TrainingStatus
from refcut_backend.training.trigger import TrainingRules
from refcut_backend.versions.serving import ProjectVersions, open_project_versions


@dataclass(frozen=True)
class TrainingWiring:
    """thread: None where nothing begins or looks after trainings."""

    runs: TrainingRuns
    requests: TrainingRequests
    status: TrainingStatus
    thread: TrainingThread | None = None


def wire_training(
    engine: Engine, settings: Settings, projects: Projects, connection: Redis | None
) -> TrainingWiring:
    """On a database and a Redis connection, which need not answer yet; None where Redis is out of reach."""
    runs, news = TrainingRuns(engine), NewAnnotations(engine)
    queue = None if connection is None else TrainingQueue(connection, settings.train_timeout_s)
    requests = TrainingRequests(runs, projects, EventLog(engine), queue)
    thread = training_thread(engine, requests, runs, TrainingRules.of(settings))
    return TrainingWiring(runs, requests, TrainingStatus(runs, news), thread)


def check_settings(settings: Settings) -> Settings:
    """The same settings. Raises ConfigError if a setting with a syntax of its own (authors, cron) cannot be read, so
    that every command reports it at its start."""
    Authors.read(settings.reference_authors)
    TrainingRules.of(settings)
    return settings


@dataclass(frozen=True)
class Wiring:
    """What the routes need."""

    clicks: ClickService
    projects: Projects
    follower: AnnotationFollower
    opener: TaskOpener
    queue_state: Callable[[], QueueState]
    versions: ProjectVersions
    training: TrainingWiring
    batches: BatchPrelabeller
    reconcile: ReconcileThread | None = None


def wire_backend(settings: Settings, connection: Redis) -> Wiring:
    """Services on the settings' database and a Redis connection. Redis need not answer yet."""
    engine = open_database(settings.database)
    projects = Projects(engine, settings.own_token, settings.label_studio_url)
    references = References(engine, Authors.read(settings.reference_authors))
    follower = AnnotationFollower(references, projects, UserEmails(projects).email_of)
    queue = ClickQueue(connection, settings.click_timeout_s, settings.click_queue_limit)
    addresses = Addresses(engine)
    versions = open_project_versions(settings)
    memory = ClickMemory(open_database(settings.database, LOCK_TIMEOUT_MS), settings.click_memory_s)
    rules = AnswerRules.of(settings)
    prelabeller = TaskPrelabeller(PrelabelQueue(connection), references, addresses, rules)
    return Wiring(
        clicks=ClickService(AddressHidingSender(queue, addresses), references, versions, rules, memory),
        projects=projects,
        follower=follower,
        opener=TaskOpener(PreloadQueue(connection), references, addresses, settings.max_references_per_label),
        queue_state=lambda: read_queue_state(connection),
        versions=versions,
        batches=BatchPrelabeller(prelabeller, PrelabelRules.of(settings)),
        training=wire_training(engine, settings, projects, connection),
        reconcile=reconcile_thread(
            engine,
            references,
            projects,
            follower,
            settings.reconcile_interval_s,
            OldClicks(engine, settings.clicks_kept_days).drop,
        ),
    )
