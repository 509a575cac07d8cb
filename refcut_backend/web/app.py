"""The HTTP server that Label Studio calls: /health, /setup, /predict, /webhook, /versions, /job_status."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from redis import Redis
from starlette.routing import Route

from refcut_backend import __version__
from refcut_backend.answer_click import AnswerRules, ClickReply, ClickRequest, ClickService
from refcut_backend.click_memory import LOCK_TIMEOUT_MS, ClickMemory
from refcut_backend.core.label_config import problems, read_label_config
from refcut_backend.errors import LabelConfigError, NotConnectedError
from refcut_backend.follow_annotations import AnnotationFollower
from refcut_backend.hide_addresses import HidesAddresses
from refcut_backend.jobs.click_queue import ClickQueue
from refcut_backend.jobs.prelabel_queue import PrelabelQueue
from refcut_backend.jobs.queue_state import QueueState, read_queue_state
from refcut_backend.jobs.warm_queue import WarmQueue
from refcut_backend.label_studio.user_addresses import UserAddresses
from refcut_backend.logs import note
from refcut_backend.model_store.from_settings import open_project_versions
from refcut_backend.model_store.project_versions import ProjectVersions
from refcut_backend.open_task import TaskOpener
from refcut_backend.payloads import JobStatusRequest, PredictRequest, SetupRequest, Webhook
from refcut_backend.prelabel_batch import BatchPrelabeller
from refcut_backend.prelabel_task import TaskPrelabeller, TaskToPrelabel
from refcut_backend.reconcile_thread import ReconcileThread, reconcile_thread
from refcut_backend.settings import Settings
from refcut_backend.store.addresses import Addresses
from refcut_backend.store.database import open_database
from refcut_backend.store.projects import Connection, Projects
from refcut_backend.store.references import References
from refcut_backend.training.ask_training import START_TRAINING
from refcut_backend.training.services import TrainingServices, connect_training
from refcut_backend.web.access import Access, Guard
from refcut_backend.web.body_limit import BodyLimit
from refcut_backend.web.browser_rules import JsonOnly, SafeHeaders
from refcut_backend.web.masks_in_body import without_masks
from refcut_backend.web.metrics import Metrics
from refcut_backend.web.operations import PATHS, operations
from refcut_backend.web.request_line import RequestLine

log = logging.getLogger("refcut.web")

REASON_HEADER = "X-RefCut-Reason"
CLICK_THREADS = 100
PRELABEL_THREADS = 20
MAX_FAULTS = 20
THREADS_SWITCH_AFTER_S = 0.0005
"""For `sys.setswitchinterval` where this application is served: a thread that decodes the masks of an event gives way to
those whom somebody waits for ten times as often as Python's default would have it."""
P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True)
class Services:
    """What the routes need."""

    clicks: ClickService
    projects: Projects
    follower: AnnotationFollower
    opener: TaskOpener
    queue_state: Callable[[], QueueState]
    versions: ProjectVersions
    training: TrainingServices
    batches: BatchPrelabeller
    reconcile: ReconcileThread | None = None


def connect_services(settings: Settings, connection: Redis) -> Services:
    """Services on the settings' database and a Redis connection. Redis need not answer yet."""
    engine = open_database(settings.database)
    projects = Projects(engine, settings.own_token, settings.label_studio_url)
    references = References(engine, settings.authors)
    follower = AnnotationFollower(references, projects, UserAddresses(projects).email_of)
    queue = ClickQueue(connection, settings.click_timeout_s, settings.click_queue_limit)
    addresses = Addresses(engine)
    versions = open_project_versions(settings)
    memory = ClickMemory(open_database(settings.database, LOCK_TIMEOUT_MS), settings.click_memory_s)
    rules = AnswerRules.of(settings)
    prelabeller = TaskPrelabeller(PrelabelQueue(connection), references, addresses, rules)
    return Services(
        clicks=ClickService(HidesAddresses(queue, addresses), references, versions, rules, memory),
        projects=projects,
        follower=follower,
        opener=TaskOpener(WarmQueue(connection), references, addresses, settings.max_references_per_label),
        queue_state=lambda: read_queue_state(connection),
        versions=versions,
        batches=BatchPrelabeller(prelabeller, settings.prelabel_rules),
        training=connect_training(engine, settings, projects, connection),
        reconcile=reconcile_thread(
            engine, references, projects, follower, settings.reconcile_interval_s, settings.clicks_kept_days
        ),
    )


def create_app(services: Services, request_max_bytes: int, access: Access | None = None) -> FastAPI:
    """The application over its services. access: what callers must know; by default nothing."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        threads = [thread for thread in (services.reconcile, services.training.thread) if thread is not None]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            await run_sync(thread.stop)

    app = FastAPI(title="RefCut for Label Studio", version=__version__, openapi_url=None, lifespan=lifespan)
    _add_label_studio_routes(app, services)
    paths = [route.path for route in app.routes if isinstance(route, Route)]
    training = services.training.status
    metrics = Metrics(services.versions, [*paths, *PATHS], services.queue_state, training)
    app.include_router(operations(metrics, services.queue_state, services.projects.can_be_read, training))
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=request_max_bytes)
    app.add_middleware(JsonOnly)
    app.add_middleware(Guard, access=access or Access())
    app.add_middleware(RequestLine, observe=metrics.observe)
    app.add_middleware(SafeHeaders)
    app.add_exception_handler(RequestValidationError, _explain_bad_request)
    return app


def _add_label_studio_routes(app: FastAPI, services: Services) -> None:
    # Clicks wait for their worker on threads of their own: else a slow worker would keep /setup from being answered.
    click_threads = CapacityLimiter(CLICK_THREADS)
    prelabel_threads = CapacityLimiter(PRELABEL_THREADS)
    # One event at a time, in the order in which they came: decoding masks shall not crowd out what somebody waits for.
    event_thread = CapacityLimiter(1)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "RefCut"}

    @app.post("/setup")
    def setup(request: SetupRequest) -> dict[str, str]:
        return answer_setup(services, request)

    @app.api_route("/versions", methods=["GET", "POST"])
    async def versions() -> dict[str, list[str]]:
        return {"versions": services.versions.all()}

    @app.post("/predict")
    async def predict(
        request: Annotated[PredictRequest, Depends(_read_predict_request)],
        response: Response,
        background: BackgroundTasks,
    ) -> dict[str, Any]:
        if request.params.context is None:
            background.add_task(prepare_task, services, request)
            if not services.batches.is_on:
                return answer_predict(services, request, response)
            return await run_sync(answer_predict, services, request, response, limiter=prelabel_threads)
        return await run_sync(answer_predict, services, request, response, limiter=click_threads)

    @app.post("/webhook")
    async def webhook(request: Request, background: BackgroundTasks) -> dict[str, Any]:
        body = await request.body()
        said = _parsed(Webhook, without_masks(body))
        note(action=said.action, project=said.project.id if said.project else None)
        if said.action == START_TRAINING and said.project is not None:
            return await run_sync(answer_start_training, services, said.project.id)
        background.add_task(_follow_in_turn, services, body, event_thread)
        return {"status": "accepted"}

    @app.post("/job_status")
    def job_status(request: JobStatusRequest) -> JSONResponse:
        job = services.training.status.job(request.job)
        if job is None:
            # The status at which Label Studio takes a job for removed.
            return JSONResponse({"error": "no such job"}, status_code=410)
        return JSONResponse(job)


async def _read_predict_request(request: Request) -> PredictRequest:
    """A task comes with every mask that has been accepted on it; a click needs none of them."""
    return _parsed(PredictRequest, without_masks(await request.body()))


def _parsed(model: type[P], body: bytes) -> P:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from None


async def _follow_in_turn(services: Services, body: bytes, event_thread: CapacityLimiter) -> None:
    """After the acknowledgement: only now the masks of an annotation are parsed."""

    def follow() -> None:
        follow_webhook(services, Webhook.model_validate_json(body))

    await run_sync(follow, limiter=event_thread)


def follow_webhook(services: Services, webhook: Webhook) -> None:
    """What an event means for references and for the click log."""
    services.follower.apply(webhook)
    services.clicks.follow(webhook)


def answer_start_training(services: Services, project_id: int) -> dict[str, Any]:
    """The button "Start training": says under which number it goes on."""
    try:
        run = services.training.requests.button_pressed(project_id)
    except NotConnectedError as error:
        log.warning("training not begun", extra={"project": project_id, "problem": str(error)})
        return {"status": error.code, "hint": str(error)}
    note(job=run.id)
    return {"status": "accepted", "job": run.id}


def answer_setup(services: Services, request: SetupRequest) -> dict[str, str]:
    """Remembers where the project is; says which model serves."""
    note(project=request.project)
    connection = Connection(request.hostname.rstrip("/"), request.access_token or "")
    is_news = services.projects.remember(request.project, connection, request.label_config, request.born)
    if is_news:
        _log_problems(request)
        services.follower.report_lost_labels(request.project, request.label_config)
    is_news |= services.follower.follow_extra_params(request.project, request.extra_params)
    if is_news and services.reconcile is not None:
        services.reconcile.soon(request.project)
    return {"model_version": services.versions.of(request.project)}


def _log_problems(request: SetupRequest) -> None:
    """What the project's owner should mend; once a change, since /setup comes with every page."""
    try:
        found = problems(read_label_config(request.label_config))
    except LabelConfigError as error:
        found = [str(error)]
    for problem in found:
        log.warning("label config", extra={"project": request.project, "problem": problem})


def prepare_task(services: Services, request: PredictRequest) -> None:
    """For a task that has just been opened, after its answer; several are a batch that nobody is about to click on."""
    if len(request.tasks) == 1:
        task = request.tasks[0]
        services.opener.task_opened(request.project, task.id, task.data, request.label_config)


def answer_predict(services: Services, request: PredictRequest, response: Response) -> dict[str, Any]:
    """The answer to /predict, whatever server took it; the reason why there is no mask goes into the headers."""
    task, context = request.tasks[0], request.params.context
    note(project=request.project, task=task.id)
    if context is None:
        return _answer_without_click(services, request, response)
    reply: ClickReply = services.clicks.answer(
        ClickRequest(
            request.project,
            task.id,
            task.data,
            request.label_config,
            context.result,
            task.seen_region_ids(),
        )
    )
    if reply.reason is not None:
        response.headers[REASON_HEADER] = reply.reason
    return {"results": [reply.prediction], "model_version": reply.prediction["model_version"]}


def _answer_without_click(services: Services, request: PredictRequest, response: Response) -> dict[str, Any]:
    """A task is being opened, or many are to be predicted. Any result is stored as a prediction of its own (contract,
    section 3)."""
    version = services.versions.of(request.project)
    if not services.batches.is_on:
        return {"results": [], "model_version": version}
    reply = services.batches.answer(
        [TaskToPrelabel(request.project, task.id, task.data, request.label_config) for task in request.tasks]
    )
    if reply.reasons:
        response.headers[REASON_HEADER] = ", ".join(sorted(reply.reasons))
    return {"results": reply.results, "model_version": version}


async def _explain_bad_request(_request: Request, error: Exception) -> JSONResponse:
    """400 with the field and the fault; never the value, which may be a secret."""
    assert isinstance(error, RequestValidationError)
    faults = [
        {"field": ".".join(str(part) for part in e["loc"])[:200], "fault": e["msg"]}
        for e in error.errors()[:MAX_FAULTS]
    ]
    note(outcome="bad_request", faults=faults)
    return JSONResponse({"error": "bad_request", "faults": faults}, status_code=400)
