"""Builds the objects of the web process and of the commands from the settings: change here what is connected to what.

`api/` and `cli/` build a wiring once at their start and hand it down. The processes of workers build theirs in
`inference/process.py` and `training/process.py`, because this module must not reach torch.

    Settings -> open_stores -> Stores (database, projects, references, addresses of images)
                  Stores + Redis -> wire_training -> TrainingWiring
                  Stores + Redis -> wire_backend  -> Wiring (everything that the routes use)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from refcut_backend.clicks.forgotten_masks import ForgottenMasks
from refcut_backend.clicks.history import ANSWER_TIMEOUT_S, LOCK_TIMEOUT_MS, ClickHistory
from refcut_backend.clicks.log import ClickLog, OldClicks
from refcut_backend.clicks.next_tasks import NextTasks
from refcut_backend.clicks.options import AnswerRules
from refcut_backend.clicks.preload import TaskPreloader
from refcut_backend.clicks.preview import MaskPreviews
from refcut_backend.clicks.recover_masks import MaskRecovery, recover_all
from refcut_backend.clicks.service import AddressHidingSender, ClickService
from refcut_backend.clicks.speed import ClickSpeed
from refcut_backend.database.engine import WriteCheck, open_database
from refcut_backend.database.projects import Projects
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import Image, read_image
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.images.uploads import Uploads
from refcut_backend.playground.service import Playground
from refcut_backend.playground.trial import Trials
from refcut_backend.prelabeling.batch import BatchPrelabeller, PrelabelRules
from refcut_backend.prelabeling.task import TaskPrelabeller
from refcut_backend.queue.background_queues import PreloadQueue, TrainingQueue
from refcut_backend.queue.click_queue import ClickQueue
from refcut_backend.queue.measure_queue import MeasureQueue
from refcut_backend.queue.prelabel_queue import PrelabelQueue
from refcut_backend.queue.queue_state import QueueState, read_queue_state
from refcut_backend.queue.recent_clicks import RecentClicks
from refcut_backend.references.authors import UserEmails
from refcut_backend.references.event_log import EventLog
from refcut_backend.references.manage import ReferenceManager
from refcut_backend.references.pictures import ReferencePictures
from refcut_backend.references.reconcile import Reconciler
from refcut_backend.references.reconcile_loop import ReconcileThread, reconcile_thread
from refcut_backend.references.registry import References
from refcut_backend.references.selection import Authors
from refcut_backend.references.sets import ReferenceSets
from refcut_backend.references.sync_states import SyncStates
from refcut_backend.references.webhooks import AnnotationFollower, EmailOf
from refcut_backend.settings import Settings
from refcut_backend.training.new_annotations import NewAnnotations
from refcut_backend.training.report import TrainingReports
from refcut_backend.training.requests import TrainingRequests
from refcut_backend.training.runs import TrainingRuns
from refcut_backend.training.scheduler import TrainingThread, training_thread
from refcut_backend.training.status import TrainingStatus
from refcut_backend.training.trigger import TrainingRules
from refcut_backend.versions.serving import ProjectVersions, open_model_store, open_project_versions
from refcut_backend.versions.store import ModelStore
from refcut_backend.worth.measure import ReferenceWorths, WorthRules

if TYPE_CHECKING:
    from redis import Redis


def check_settings(settings: Settings) -> Settings:
    """Check the settings that have a syntax of their own, so that every command reports a mistake at its start.

    Returns:
        The same settings.

    Raises:
        ConfigError: If `REFCUT_REFERENCE_AUTHORS` or `REFCUT_TRAIN_CRON` cannot be parsed.
    """
    Authors.read(settings.reference_authors)
    TrainingRules.of(settings)
    return settings


@dataclass(frozen=True)
class Stores:
    """What web process and commands read from and write to the database.

    Attributes:
        engine: The database; `open_stores` closes it.
        projects: Projects that have called /setup, with address, token and label config.
        references: The references of all projects.
        addresses: Signed image URLs, hidden behind keys that may travel through Redis.
        uploads: Photographs in the database.
    """

    engine: Engine
    projects: Projects
    references: References
    addresses: Addresses
    uploads: Uploads

    def read_image(self, settings: Settings, where: TaskImage) -> Image:
        """Fetches an image at full size, (H, W, 3) uint8 RGB. Raises RefCutError."""
        return read_image(settings, self.projects, self.addresses, self.uploads, where)

    def follower(self) -> AnnotationFollower:
        """What applies webhooks to the references."""
        return AnnotationFollower(self.references, self.projects, UserEmails(self.projects).email_of)

    def reference_manager(self, settings: Settings) -> ReferenceManager:
        """What lists and changes the references of a project."""
        reconciler = Reconciler(self.references, self.projects, SyncStates(self.engine), self.follower())
        return ReferenceManager(
            self.references,
            self.projects,
            self.uploads,
            reconciler,
            settings.max_references_per_label,
        )

    def reference_pictures(self, settings: Settings) -> ReferencePictures:
        """What draws references on their photographs."""
        return ReferencePictures(self.references, partial(self.read_image, settings))

    def reference_sets(self, settings: Settings) -> ReferenceSets:
        """What moves references between projects."""
        return ReferenceSets(
            self.engine,
            self.references,
            self.projects,
            self.uploads,
            partial(self.read_image, settings),
            settings,
        )

    def trials(self, playground: Playground, settings: Settings) -> Trials:
        """What puts tasks and references of projects on the playground."""
        return Trials(
            self.references,
            self.projects,
            self.uploads,
            playground.references,
            partial(self.read_image, settings),
            settings.max_references_per_label,
        )


def connect_stores(settings: Settings) -> Stores:
    """The stores on the settings' database, for the life of the process. Raises ConfigError if it cannot be opened."""
    engine = open_database(settings.database)
    references = References(engine, Authors.read(settings.reference_authors))
    return Stores(engine, Projects.of(engine, settings), references, Addresses(engine), Uploads(engine))


@contextmanager
def open_stores(settings: Settings) -> Iterator[Stores]:
    """The stores for one command; the database is closed at the end."""
    stores = connect_stores(settings)
    try:
        yield stores
    finally:
        stores.engine.dispose()


def task_prelabeller(stores: Stores, settings: Settings, connection: Redis) -> TaskPrelabeller:
    """Connect what lets workers search a task for the labels that have references.

    Args:
        stores: From `open_stores` or `connect_stores`.
        settings: Their form of masks and number of references are used.
        connection: Redis with the queue of pre-labelling jobs.
    """
    return TaskPrelabeller(
        PrelabelQueue(connection), stores.references, stores.addresses, AnswerRules.of(settings)
    )


def reference_worths(stores: Stores, settings: Settings, connection: Redis) -> ReferenceWorths:
    """Connect what lets workers measure what references are worth.

    Args:
        stores: From `open_stores` or `connect_stores`.
        settings: Their number of references and folder of trainings are used.
        connection: Redis with the queue of measurements.
    """
    return ReferenceWorths(
        stores.engine,
        stores.projects,
        stores.references,
        stores.addresses,
        MeasureQueue(connection),
        WorthRules(
            settings.max_references_per_label, settings.training_dir, open_project_versions(settings).shared
        ),
    )


@dataclass(frozen=True)
class TrainingWiring:
    """Everything about trainings, except for the training itself.

    Attributes:
        thread: Starts due trainings; None in processes that do not start any.
    """

    runs: TrainingRuns
    requests: TrainingRequests
    status: TrainingStatus
    thread: TrainingThread | None = None


def wire_training(stores: Stores, settings: Settings, connection: Redis | None) -> TrainingWiring:
    """Connect what requests trainings and reports on them.

    Args:
        stores: From `open_stores` or `connect_stores`.
        settings: Their triggers and limits are used.
        connection: Redis, which need not answer yet; None if this process does not know it.
    """
    runs = TrainingRuns(stores.engine)
    queue = None if connection is None else TrainingQueue(connection, settings.train_timeout_s)
    requests = TrainingRequests(runs, stores.projects, EventLog(stores.engine), queue)
    thread = training_thread(stores.engine, requests, runs, TrainingRules.of(settings))
    status = TrainingStatus(runs, NewAnnotations(stores.engine), stores.engine)
    return TrainingWiring(runs, requests, status, thread)


@dataclass(frozen=True)
class Wiring:
    """Everything that the routes use.

    Attributes:
        clicks: Answers clicks.
        projects: Remembers what /setup says.
        references: The references of all projects.
        reference_manager: Lists and changes them.
        reference_pictures: Draws them.
        reference_sets: Moves them between projects.
        reference_worths: Measures what they are worth.
        email_of: Looks up the e-mail address of a user of a project's Label Studio; None if it is not known.
        reference_uses: Counts the clicks that used the references of a project, by version.
        follower: Applies webhooks to the references.
        preloader: Prepares a task for its first click.
        queue_state: Reads depth, workers and outcomes of the click queue. Raises QueueUnavailableError.
        versions: Which model version serves which project.
        training: Requests and status of trainings.
        batches: Answers requests without a click.
        playground: What the playground page asks for.
        trials: Puts tasks and references of projects on the playground.
        database_is_writable: Whether a row can be written now; answers within seconds.
        forgotten_masks: Number of masks that annotations lack because their tick was forgotten, per project id.
        click_timeout_s: Deadline of a click in seconds.
        reconcile: Compares the references with Label Studio; None in processes that do not.
        next_tasks: Prepares the task that will be opened next; None if that is switched off.
        recent_clicks: The last clicks with their outcomes.
        click_speed: How long the clicks of the last hour took.
        previews: Small pictures of answered masks.
        model_store: The versions of all projects.
        training_reports: What the page of a project's trainings shows.
        state_dir: Folder of database, versions and trainings.
    """

    clicks: ClickService
    projects: Projects
    references: References
    reference_manager: ReferenceManager
    reference_pictures: ReferencePictures
    reference_sets: ReferenceSets
    reference_worths: ReferenceWorths
    email_of: EmailOf
    reference_uses: Callable[[int], dict[str, int]]
    follower: AnnotationFollower
    preloader: TaskPreloader
    queue_state: Callable[[], QueueState]
    versions: ProjectVersions
    training: TrainingWiring
    batches: BatchPrelabeller
    playground: Playground
    trials: Trials
    database_is_writable: Callable[[], bool]
    recent_clicks: RecentClicks
    click_speed: ClickSpeed
    previews: MaskPreviews
    model_store: ModelStore
    training_reports: TrainingReports
    state_dir: Path
    forgotten_masks: Callable[[], dict[int, int]] = dict
    click_timeout_s: float = 8.0
    reconcile: ReconcileThread | None = None
    next_tasks: NextTasks | None = None


def mask_recovery(stores: Stores, settings: Settings) -> MaskRecovery:
    """Connect what puts masks whose tick was forgotten into their annotations."""
    rules = AnswerRules.of(settings)
    return MaskRecovery(ForgottenMasks(stores.engine), stores.projects, rules.mask_output, rules.outlines)


def _periodic_work(stores: Stores, settings: Settings, worths: ReferenceWorths) -> Callable[[], None]:
    """What one of the web processes does after every round of comparisons."""
    works = [OldClicks(stores.engine, settings.clicks_kept_days).drop, worths.resume]
    if settings.recover_masks:
        works.append(recover_all(mask_recovery(stores, settings), ForgottenMasks(stores.engine)))

    def work() -> None:
        for one in works:
            one()

    return work


def wire_backend(settings: Settings, connection: Redis) -> Wiring:
    """Connect everything that the routes use. No thread is started.

    Args:
        settings: From the environment, checked by `check_settings`.
        connection: Redis; need not answer yet.

    Raises:
        ConfigError: If the database or the model store cannot be opened.
    """
    stores = connect_stores(settings)
    references, addresses = stores.references, stores.addresses
    follower = stores.follower()
    queue = ClickQueue(
        connection,
        timeout_s=settings.click_timeout_s,
        limit=settings.click_queue_limit,
        longest_wait_s=settings.click_queue_wait_s,
    )
    versions, store = open_project_versions(settings), open_model_store(settings)
    training = wire_training(stores, settings, connection)
    worths = reference_worths(stores, settings, connection)
    # A connection of its own: a click waits for another writer for a shorter time than other requests.
    memory = ClickHistory(
        open_database(settings.database, LOCK_TIMEOUT_MS, ANSWER_TIMEOUT_S), settings.click_memory_s
    )
    preloads, log = PreloadQueue(connection), ClickLog(stores.engine)
    preloader_on = partial(
        TaskPreloader,
        references=references,
        clicks=log,
        addresses=addresses,
        max_references=settings.max_references_per_label,
    )
    next_tasks = NextTasks(stores.projects, preloader_on(PreloadQueue(connection, ahead=True)))
    playground = Playground(stores.engine, queue, preloads, settings)
    return Wiring(
        clicks=ClickService(
            AddressHidingSender(queue, addresses), references, versions, AnswerRules.of(settings), memory
        ),
        projects=stores.projects,
        references=references,
        reference_manager=stores.reference_manager(settings),
        reference_pictures=stores.reference_pictures(settings),
        reference_sets=stores.reference_sets(settings),
        reference_worths=worths,
        email_of=UserEmails(stores.projects).email_of,
        reference_uses=log.reference_uses,
        follower=follower,
        preloader=preloader_on(preloads),
        queue_state=lambda: read_queue_state(connection),
        versions=versions,
        playground=playground,
        trials=stores.trials(playground, settings),
        batches=BatchPrelabeller(task_prelabeller(stores, settings, connection), PrelabelRules.of(settings)),
        training=training,
        database_is_writable=WriteCheck(stores.engine).passes,
        recent_clicks=RecentClicks(connection),
        click_speed=ClickSpeed(stores.engine),
        previews=MaskPreviews(stores.engine),
        model_store=store,
        training_reports=TrainingReports(
            training.runs,
            NewAnnotations(stores.engine),
            TrainingRules.of(settings),
            store,
            log,
            versions.shared,
        ),
        state_dir=settings.state_dir,
        forgotten_masks=ForgottenMasks(stores.engine).counts,
        click_timeout_s=settings.click_timeout_s,
        reconcile=reconcile_thread(
            stores.engine,
            references,
            stores.projects,
            follower,
            settings.reconcile_interval_s,
            _periodic_work(stores, settings, worths),
        ),
        next_tasks=next_tasks if settings.prepare_next_task else None,
    )
