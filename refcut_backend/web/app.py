"""The HTTP server that Label Studio calls: /health, /setup, /predict, /webhook, /versions."""

from __future__ import annotations

import logging
from collections.abc import Callable
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

from model.version_folder import version_name
from refcut_backend import __version__
from refcut_backend.answer_click import ClickReply, ClickRequest, ClickService
from refcut_backend.core.label_config import problems, read_label_config
from refcut_backend.errors import LabelConfigError
from refcut_backend.follow_annotations import AnnotationFollower
from refcut_backend.jobs.click_queue import ClickQueue
from refcut_backend.jobs.queue_state import QueueState, read_queue_state
from refcut_backend.logs import note
from refcut_backend.payloads import PredictRequest, SetupRequest, Webhook
from refcut_backend.settings import Settings
from refcut_backend.store.database import open_database
from refcut_backend.store.projects import Connection, Projects
from refcut_backend.store.references import References
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
    queue_state: Callable[[], QueueState]
    model_version: str
    access_token: str | None


def connect_services(settings: Settings, connection: Redis) -> Services:
    """Services on the settings' database and a Redis connection. Redis need not answer yet."""
    engine = open_database(settings.database)
    projects, references = Projects(engine), References(engine)
    queue = ClickQueue(connection, settings.click_timeout_s)
    version = version_name(settings.model_dir)
    return Services(
        clicks=ClickService(queue, references, version, settings.max_references_per_label),
        projects=projects,
        follower=AnnotationFollower(references, projects),
        queue_state=lambda: read_queue_state(connection),
        model_version=version,
        access_token=settings.access_token.get_secret_value() if settings.access_token else None,
    )


def create_app(services: Services, request_max_bytes: int, access: Access | None = None) -> FastAPI:
    """The application over its services. access: what callers must know; by default nothing."""
    app = FastAPI(title="RefCut for Label Studio", version=__version__, openapi_url=None)
    _add_label_studio_routes(app, services)
    paths = [route.path for route in app.routes if isinstance(route, Route)]
    metrics = Metrics(services.model_version, [*paths, *PATHS], services.queue_state)
    app.include_router(operations(metrics, services.queue_state, services.projects.can_be_read))
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
        return {"versions": [services.model_version]}

    @app.post("/predict")
    async def predict(
        request: Annotated[PredictRequest, Depends(_read_predict_request)], response: Response
    ) -> dict[str, Any]:
        return await run_sync(answer_predict, services, request, response, limiter=click_threads)

    @app.post("/webhook")
    async def webhook(request: Request, background: BackgroundTasks) -> dict[str, str]:
        body = await request.body()
        said = _parsed(Webhook, without_masks(body))
        note(action=said.action, project=said.project.id if said.project else None)
        background.add_task(_follow_in_turn, services, body, event_thread)
        return {"status": "accepted"}


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
        services.follower.apply(Webhook.model_validate_json(body))

    await run_sync(follow, limiter=event_thread)


def answer_setup(services: Services, request: SetupRequest) -> dict[str, str]:
    """Remembers where the project is; says which model serves."""
    note(project=request.project)
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


def answer_predict(services: Services, request: PredictRequest, response: Response) -> dict[str, Any]:
    """The answer to /predict, whatever server took it; the reason why there is no mask goes into the headers."""
    if request.params.context is None:
        # A task is being opened: any result here would be stored as a prediction of its own (contract, section 3).
        return {"results": [], "model_version": services.model_version}
    task = request.tasks[0]
    note(project=request.project, task=task.id)
    reply: ClickReply = services.clicks.answer(
        ClickRequest(request.project, task.id, task.data, request.label_config, request.params.context.result)
    )
    if reply.reason is not None:
        response.headers[REASON_HEADER] = reply.reason
    return {"results": [reply.prediction], "model_version": services.model_version}


async def _explain_bad_request(_request: Request, error: Exception) -> JSONResponse:
    """400 with the field and the fault; never the value, which may be a secret."""
    assert isinstance(error, RequestValidationError)
    faults = [{"field": ".".join(str(part) for part in e["loc"]), "fault": e["msg"]} for e in error.errors()]
    note(outcome="bad_request", faults=faults)
    return JSONResponse({"error": "bad_request", "faults": faults}, status_code=400)
