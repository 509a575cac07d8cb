"""The HTTP server that Label Studio calls: /health, /setup, /predict, /webhook, /versions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis import Redis

from model.version_folder import version_name
from refcut_backend import __version__
from refcut_backend.answer_click import ClickReply, ClickRequest, ClickService
from refcut_backend.core.label_config import problems, read_label_config
from refcut_backend.errors import LabelConfigError
from refcut_backend.follow_annotations import AnnotationFollower
from refcut_backend.jobs.click_queue import ClickQueue
from refcut_backend.payloads import PredictRequest, SetupRequest, Webhook
from refcut_backend.settings import Settings
from refcut_backend.store.database import open_database
from refcut_backend.store.projects import Connection, Projects
from refcut_backend.store.references import References
from refcut_backend.web.body_limit import BodyLimit
from refcut_backend.web.threads import room_for

log = logging.getLogger("refcut.web")

REASON_HEADER = "X-RefCut-Reason"


@dataclass(frozen=True)
class Services:
    """What the routes need."""

    clicks: ClickService
    projects: Projects
    follower: AnnotationFollower
    queue: ClickQueue
    model_version: str
    access_token: str | None


def connect_services(settings: Settings, connection: Redis) -> Services:
    """Services on the settings' database and a Redis connection. Redis need not answer yet."""
    engine = open_database(settings.database)
    projects, references = Projects(engine), References(engine)
    queue = ClickQueue(connection, settings.click_timeout_s, settings.click_queue_limit)
    version = version_name(settings.model_dir)
    return Services(
        clicks=ClickService(queue, references, version, settings.max_references_per_label),
        projects=projects,
        follower=AnnotationFollower(references, projects),
        queue=queue,
        model_version=version,
        access_token=settings.access_token.get_secret_value() if settings.access_token else None,
    )


def create_app(services: Services, request_max_bytes: int, waiting_callers: int = 0) -> FastAPI:
    """The application over its services. waiting_callers: clicks that may wait for a worker at once."""
    app = FastAPI(
        title="RefCut for Label Studio",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=room_for(waiting_callers),
    )
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
    def predict(request: PredictRequest, response: Response) -> dict[str, Any]:
        return _predict(services, request, response)

    @app.post("/webhook")
    async def webhook(request: Webhook, background: BackgroundTasks) -> dict[str, str]:
        background.add_task(services.follower.apply, request)
        return {"status": "accepted"}

    return app


def _setup(services: Services, request: SetupRequest) -> dict[str, str]:
    connection = Connection(request.hostname.rstrip("/"), services.access_token or request.access_token or "")
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


def _predict(services: Services, request: PredictRequest, response: Response) -> dict[str, Any]:
    if request.params.context is None:
        # A task is being opened: any result here would be stored as a prediction of its own (contract, section 3).
        return {"results": [], "model_version": services.model_version}
    task = request.tasks[0]
    reply: ClickReply = services.clicks.answer(
        ClickRequest(request.project, task.id, task.data, request.label_config, request.params.context.result)
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
