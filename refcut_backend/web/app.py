"""The HTTP server that Label Studio calls: /health, /setup, /predict, /webhook, /versions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from redis import Redis

from model.version_folder import version_name
from refcut_backend import __version__
from refcut_backend.answer_click import AnswerRules, ClickReply, ClickRequest, ClickService
from refcut_backend.click_memory import LOCK_TIMEOUT_MS, ClickMemory
from refcut_backend.core.label_config import problems, read_label_config
from refcut_backend.errors import LabelConfigError
from refcut_backend.follow_annotations import AnnotationFollower
from refcut_backend.hide_addresses import HidesAddresses
from refcut_backend.jobs.click_queue import ClickQueue
from refcut_backend.jobs.warm_queue import WarmQueue
from refcut_backend.open_task import TaskOpener
from refcut_backend.payloads import PredictRequest, SetupRequest, Webhook
from refcut_backend.settings import Settings
from refcut_backend.store.addresses import Addresses
from refcut_backend.store.database import open_database
from refcut_backend.store.projects import Connection, Projects
from refcut_backend.store.references import References
from refcut_backend.web.body_limit import BodyLimit

log = logging.getLogger("refcut.web")

REASON_HEADER = "X-RefCut-Reason"


@dataclass(frozen=True)
class Services:
    """What the routes need."""

    clicks: ClickService
    projects: Projects
    follower: AnnotationFollower
    queue: ClickQueue
    opener: TaskOpener
    model_version: str


def connect_services(settings: Settings, connection: Redis) -> Services:
    """Services on the settings' database and a Redis connection. Redis need not answer yet."""
    engine = open_database(settings.database)
    projects = Projects(engine, settings.own_token, settings.label_studio_url)
    references = References(engine)
    queue = ClickQueue(connection, settings.click_timeout_s)
    addresses = Addresses(engine)
    version = version_name(settings.model_dir)
    memory = ClickMemory(open_database(settings.database, LOCK_TIMEOUT_MS), settings.click_memory_s)
    return Services(
        clicks=ClickService(
            HidesAddresses(queue, addresses), references, version, AnswerRules.of(settings), memory
        ),
        projects=projects,
        follower=AnnotationFollower(references, projects),
        queue=queue,
        opener=TaskOpener(WarmQueue(connection), references, addresses, settings.max_references_per_label),
        model_version=version,
    )


def create_app(services: Services, request_max_bytes: int) -> FastAPI:
    """The application over its services."""
    app = FastAPI(title="RefCut for Label Studio", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, max_bytes=request_max_bytes)
    app.add_exception_handler(RequestValidationError, _explain_bad_request)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "RefCut"}

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    def readyz() -> JSONResponse:
        ready = services.queue.is_reachable()
        return JSONResponse({"redis": "up" if ready else "down"}, status_code=200 if ready else 503)

    @app.post("/setup")
    def setup(request: SetupRequest) -> dict[str, str]:
        return _setup(services, request)

    @app.get("/versions")
    async def versions() -> dict[str, list[str]]:
        return {"versions": [services.model_version]}

    @app.post("/predict")
    def predict(
        request: Annotated[PredictRequest, Depends(_read_predict_request)],
        response: Response,
        background: BackgroundTasks,
    ) -> dict[str, Any]:
        return _predict(services, request, response, background)

    @app.post("/webhook")
    async def webhook(request: Webhook, background: BackgroundTasks) -> dict[str, str]:
        background.add_task(services.follower.apply, request)
        background.add_task(services.clicks.follow, request)
        return {"status": "accepted"}

    return app


def _setup(services: Services, request: SetupRequest) -> dict[str, str]:
    connection = Connection(request.hostname.rstrip("/"), request.access_token or "")
    if services.projects.remember(request.project, connection, request.label_config):
        _log_problems(request)
    return {"model_version": services.model_version}


def _log_problems(request: SetupRequest) -> None:
    """What the project's owner should mend; once a change, since /setup comes with every page."""
    try:
        found = problems(read_label_config(request.label_config))
    except LabelConfigError as error:
        found = [str(error)]
    for problem in found:
        log.warning("label config", extra={"project": request.project, "problem": problem})


async def _read_predict_request(request: Request) -> PredictRequest:
    """Without a detour over Python objects: a task with many masks is megabytes that do not matter to a click."""
    try:
        return PredictRequest.model_validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from None


def _predict(
    services: Services, request: PredictRequest, response: Response, background: BackgroundTasks
) -> dict[str, Any]:
    task = request.tasks[0]
    if request.params.context is None:
        # A task is being opened: any result here would be stored as a prediction of its own (contract, section 3).
        # Several tasks are a batch that nobody is about to click on.
        if len(request.tasks) == 1:
            opened = (request.project, task.id, task.data, request.label_config)
            background.add_task(services.opener.task_opened, *opened)
        return {"results": [], "model_version": services.model_version}
    reply: ClickReply = services.clicks.answer(
        ClickRequest(
            request.project,
            task.id,
            task.data,
            request.label_config,
            request.params.context.result,
            task.seen_region_ids(),
        )
    )
    if reply.reason is not None:
        response.headers[REASON_HEADER] = reply.reason
    return {"results": [reply.prediction], "model_version": services.model_version}


async def _explain_bad_request(request: Request, error: Exception) -> JSONResponse:
    """400 with the field and the fault; never the value, which may be a secret."""
    assert isinstance(error, RequestValidationError)
    faults = [{"field": ".".join(str(part) for part in e["loc"]), "fault": e["msg"]} for e in error.errors()]
    log.warning("bad request", extra={"path": request.url.path, "faults": faults})
    return JSONResponse({"error": "bad_request", "faults": faults}, status_code=400)
