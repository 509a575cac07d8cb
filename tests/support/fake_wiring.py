"""The wiring behind a server, on a fresh database and a queue that answers at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import redis
from sqlalchemy import Engine

from refcut_backend.clicks.history import ClickHistory
from refcut_backend.clicks.log import ClickLog
from refcut_backend.clicks.options import AnswerRules
from refcut_backend.clicks.preview import MaskPreviews
from refcut_backend.clicks.service import ClickService
from refcut_backend.clicks.speed import ClickSpeed
from refcut_backend.database.engine import WriteCheck, open_database
from refcut_backend.database.projects import Projects
from refcut_backend.errors import ClickTimeoutError, ImageError, QueueUnavailableError
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.images.uploads import Uploads
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.regions import prediction
from refcut_backend.playground.service import Playground
from refcut_backend.prelabeling.batch import BatchPrelabeller, PrelabelRules
from refcut_backend.prelabeling.task import Prelabelled, TaskToPrelabel
from refcut_backend.queue.heartbeats import WorkerState
from refcut_backend.queue.measure_queue import MeasureAnswer, MeasuredSet, MeasureJob
from refcut_backend.queue.messages import ClickAnswer, ClickJob, PreloadJob
from refcut_backend.queue.queue_state import QueueState
from refcut_backend.queue.recent_clicks import RecentClicks
from refcut_backend.queue.rq_jobs import CLICK_QUEUE
from refcut_backend.references.authors import UserEmails
from refcut_backend.references.event_log import EventLog
from refcut_backend.references.registry import References
from refcut_backend.references.webhooks import AnnotationFollower
from refcut_backend.settings import Settings
from refcut_backend.training.new_annotations import NewAnnotations
from refcut_backend.training.report import TrainingReports
from refcut_backend.training.requests import TrainingRequests
from refcut_backend.training.runs import TrainingRuns
from refcut_backend.training.status import TrainingStatus
from refcut_backend.training.trigger import TrainingRules
from refcut_backend.versions.store import ModelStore
from refcut_backend.wiring import Stores, TrainingWiring, Wiring
from refcut_backend.worth.measure import ReferenceWorths, WorthRules
from tests.support.one_version import OneVersion
from tests.support.recorded import LABEL_CONFIG

MASK = np.eye(8, dtype=bool)
MODEL_VERSION = "s14-test"
CREATED = "1795343347"
PROJECTS = {2: "1795342440", 3: "1795343347", 6: "1795344282", 7: CREATED}
"""When the projects of recorded requests and of `click_body` were created."""


class FakeQueue:
    """Answers at once with a fixed mask, and keeps the jobs. state: what it says of itself, None = Redis is down.

    refused: those of the jobs that it failed with `fails_with`.
    """

    def __init__(self) -> None:
        self.jobs: list[ClickJob] = []
        self.refused: list[ClickJob] = []
        self.fails_with: Exception | None = None
        self.answer = ClickAnswer(
            width=8, height=8, rle=brush_rle.encode(MASK), score=0.9, milliseconds={"network": 80.0}
        )
        self.preloads = FakePreloads()
        self.state: QueueState | None = None
        self.problem = QueueUnavailableError("Redis cannot be reached")

    def ask(self, job: ClickJob) -> ClickAnswer:
        self.jobs.append(ClickJob.from_json(job.to_json()))
        if (problem := self.fails_with) is not None:
            self.refused.append(job)
            raise problem
        return self.answer

    def read_state(self) -> QueueState:
        if self.state is None:
            raise self.problem
        return self.state


class FakePreloads:
    """Keeps what workers are asked to prepare."""

    def __init__(self) -> None:
        self.jobs: list[PreloadJob] = []

    def ask(self, job: PreloadJob) -> bool:
        self.jobs.append(PreloadJob.from_json(job.to_json()))
        return True


def queue_state(waiting: int, ready_workers: int, click_s: float | None = None) -> QueueState:
    """A queue with some workers that take clicks. click_s: seconds that each took for a click lately."""
    workers = [
        WorkerState(f"worker-{n}", (CLICK_QUEUE,), ready=True, click_s=click_s) for n in range(ready_workers)
    ]
    return QueueState(waiting, 2.0 if waiting else 0.0, tuple(workers), {"busy": 7})


class FakeMeasureQueue:
    """Gives a click the IoU .5 alone, and .1 more per reference. gate: what every answer waits for."""

    def __init__(self, *versions: str) -> None:
        self.jobs: list[MeasureJob] = []
        self.versions = list(versions)
        self.workers_ready = 1
        self.problems: dict[int, str] = {}
        self.lost: set[int] = set()
        self.images: dict[int, str] = {}
        self.most_at_once = 100
        self.gate: threading.Event | None = None

    def workers(self) -> range:
        return range(self.workers_ready)

    def ask(
        self, job: MeasureJob, deadline: float, is_cancelled: Callable[[], bool], *, is_continuation: bool
    ) -> MeasureAnswer:
        assert is_continuation == (() not in job.sets)
        self.jobs.append(MeasureJob.from_json(json.loads(json.dumps(job.to_json()))))
        while self.gate is not None and not self.gate.wait(0.02):
            if is_cancelled():
                raise ClickTimeoutError("not in time")
        if job.task_id in self.problems:
            return MeasureAnswer.refused(ImageError(self.problems[job.task_id]))
        measured = [
            MeasuredSet(None, "its image cannot be used: lost")
            if self.lost.intersection(ids)
            else MeasuredSet(0.5 + 0.1 * len(ids))
            for ids in job.sets[: self.most_at_once]
        ]
        version = self.versions.pop(0) if self.versions else MODEL_VERSION
        return MeasureAnswer(tuple(measured), self.images.get(job.task_id, "image"), version)


class FakePreloader:
    """Notes which tasks were opened, as (project, task)."""

    def __init__(self) -> None:
        self.opened: list[tuple[int, int]] = []

    def prepare(self, project_id: int, task_id: int, _data: object, _config: str) -> None:
        self.opened.append((project_id, task_id))


class FakePrelabeller:
    """Finds one region on every task, once the gate is open; tasks in `problems` fail."""

    def __init__(self) -> None:
        self.tasks: list[TaskToPrelabel] = []
        self.problems: dict[int, Exception] = {}
        self.gate: threading.Event | None = None

    def at_once(self) -> int:
        return 2

    def prelabel(self, task: TaskToPrelabel, limit_s: float) -> Prelabelled:
        self.tasks.append(task)
        if self.gate is not None and not self.gate.wait(limit_s):
            raise ClickTimeoutError("not in time")
        if task.task_id in self.problems:
            raise self.problems[task.task_id]
        return Prelabelled(prediction(MODEL_VERSION, [{"id": f"of-{task.task_id}"}], 0.5), 1)


@contextmanager
def wiring_on(
    folder: Path,
    queue: FakeQueue,
    preloader: FakePreloader | None = None,
    prelabeller: FakePrelabeller | None = None,
    prelabel_rules: PrelabelRules | None = None,
    url: str | None = None,
    recent_clicks: RecentClicks | None = None,
    measurer: FakeMeasureQueue | None = None,
) -> Iterator[Wiring]:
    """A wiring with its database in a folder, or at a URL; the projects of recorded requests have called /setup."""
    engine = open_database(url or f"sqlite:///{folder / 'refcut.db'}")
    projects, references = Projects(engine), References(engine)
    for number, created in PROJECTS.items():
        projects.remember(number, Connection("", ""), "", created)
    training, store = training_on(engine, projects), ModelStore.open(str(folder / "models"))
    settings, stores = Settings(), Stores(engine, projects, references, Addresses(engine), Uploads(engine))
    playground = Playground(engine, queue, queue.preloads, settings)
    yield Wiring(
        clicks=ClickService(
            queue, references, OneVersion(MODEL_VERSION), AnswerRules(), ClickHistory(engine, 600)
        ),
        projects=projects,
        references=references,
        reference_manager=stores.reference_manager(settings),
        reference_pictures=stores.reference_pictures(settings),
        reference_sets=stores.reference_sets(settings),
        reference_worths=ReferenceWorths(
            engine,
            projects,
            references,
            stores.addresses,
            measurer or FakeMeasureQueue(),
            WorthRules(4, folder / "training", MODEL_VERSION),
        ),
        email_of=UserEmails(projects).email_of,
        reference_uses=ClickLog(engine).reference_uses,
        follower=AnnotationFollower(references, projects),
        preloader=preloader or FakePreloader(),  # type: ignore[arg-type]
        queue_state=queue.read_state,
        versions=OneVersion(MODEL_VERSION),
        training=training,
        batches=BatchPrelabeller(prelabeller or FakePrelabeller(), prelabel_rules or PrelabelRules()),
        playground=playground,
        trials=stores.trials(playground, settings),
        database_is_writable=WriteCheck(engine).passes,
        recent_clicks=recent_clicks or RecentClicks(redis.Redis(port=1)),
        click_speed=ClickSpeed(engine),
        previews=MaskPreviews(engine),
        model_store=store,
        training_reports=TrainingReports(
            training.runs,
            NewAnnotations(engine),
            TrainingRules(20, 600.0),
            store,
            ClickLog(engine),
            MODEL_VERSION,
        ),
        state_dir=folder,
    )
    engine.dispose()


def training_on(engine: Engine, projects: Projects) -> TrainingWiring:
    """Trainings that can be asked for and that nobody begins."""
    runs = TrainingRuns(engine)
    requests = TrainingRequests(runs, projects, EventLog(engine), None)
    return TrainingWiring(runs, requests, TrainingStatus(runs, NewAnnotations(engine), engine))


def click_body(*dots: dict[str, Any], task: int = 3, **more: Any) -> dict[str, Any]:
    """A click request of project 7."""
    return {
        "tasks": [{"id": task, "data": {"image": "/data/upload/1/a.jpg"}}],
        "project": f"7.{CREATED}",
        "label_config": LABEL_CONFIG,
        "params": {"login": None, "password": None, "context": {"result": list(dots)}},
    } | more
