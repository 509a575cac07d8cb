"""The HTTP server that Label Studio calls: routes, order of the middleware, threads per kind of request.

Routes: /health, /setup, /predict, /webhook, /versions, /job_status here, and those of `operations.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import label_studio_sdk.client  # noqa: F401 - takes about a second, which no click and no webhook should wait for
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.routing import Route

from refcut_backend import __version__
from refcut_backend.api.auth import Access, Guard
from refcut_backend.api.handlers import (
    answer_predict,
    answer_setup,
    answer_start_training,
    follow_webhook,
    prepare_task,
)
from refcut_backend.api.metrics import Metrics
from refcut_backend.api.middleware import BodyLimit, JsonOnly, RequestLine, SafeHeaders
from refcut_backend.api.operations import PATHS, operations
from refcut_backend.label_studio.payloads import (
    JobStatusRequest,
    PredictRequest,
    SetupRequest,
    Webhook,
    without_masks,
)
from refcut_backend.logs import note
from refcut_backend.training.requests import START_TRAINING
from refcut_backend.wiring import Wiring

CLICK_THREADS = 100
PRELABEL_THREADS = 20
MAX_FAULTS = 20
THREADS_SWITCH_AFTER_S = 0.0005
"""For `sys.setswitchinterval` in this process: a tenth of Python's default, so that a thread that decodes the masks of a
webhook delays the threads that answer clicks less."""
P = TypeVar("P", bound=BaseModel)


def create_app(wiring: Wiring, request_max_bytes: int, access: Access | None = None) -> FastAPI:
    """Build the application.

    Args:
        wiring: What the routes use. Its threads run as long as the application does.
        request_max_bytes: Larger bodies are refused with 413.
        access: Credentials that requests must carry; by default none.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        threads = [thread for thread in (wiring.reconcile, wiring.training.thread) if thread is not None]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            await run_sync(thread.stop)

    app = FastAPI(title="RefCut for Label Studio", version=__version__, openapi_url=None, lifespan=lifespan)
    _add_label_studio_routes(app, wiring)
    paths = [route.path for route in app.routes if isinstance(route, Route)]
    training = wiring.training.status
    metrics = Metrics(wiring.versions, [*paths, *PATHS], wiring.queue_state, training)
    app.include_router(operations(metrics, wiring.queue_state, wiring.projects.can_be_read, training))
    # The middleware that is added last is the outermost.
    app.add_middleware(BodyLimit, max_bytes=request_max_bytes)
    app.add_middleware(JsonOnly)
    app.add_middleware(Guard, access=access or Access())
    app.add_middleware(RequestLine, observe=metrics.observe)
    app.add_middleware(SafeHeaders)
    app.add_exception_handler(RequestValidationError, _explain_bad_request)
    return app


def _add_label_studio_routes(app: FastAPI, wiring: Wiring) -> None:
    # Clicks wait for their worker on threads of their own; otherwise a slow worker would block /setup.
    click_threads = CapacityLimiter(CLICK_THREADS)
    prelabel_threads = CapacityLimiter(PRELABEL_THREADS)
    # Webhooks are applied one at a time, in order: decoding their masks must not delay clicks.
    event_thread = CapacityLimiter(1)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "RefCut"}

    @app.post("/setup")
    def setup(request: SetupRequest) -> dict[str, str]:
        return answer_setup(wiring, request)

    @app.api_route("/versions", methods=["GET", "POST"])
    async def versions() -> dict[str, list[str]]:
        return {"versions": wiring.versions.all()}

    @app.post("/predict")
    async def predict(
        request: Annotated[PredictRequest, Depends(_read_predict_request)],
        response: Response,
        background: BackgroundTasks,
    ) -> dict[str, Any]:
        if request.params.context is None:
            background.add_task(prepare_task, wiring, request)
            return await run_sync(answer_predict, wiring, request, response, limiter=prelabel_threads)
        return await run_sync(answer_predict, wiring, request, response, limiter=click_threads)

    @app.post("/webhook")
    async def webhook(request: Request, background: BackgroundTasks) -> dict[str, Any]:
        body = await request.body()
        event = _parsed(Webhook, without_masks(body))
        note(action=event.action, project=event.project.id if event.project else None)
        if event.action == START_TRAINING and event.project is not None:
            return await run_sync(answer_start_training, wiring, event.project.ref)
        background.add_task(_follow_in_order, wiring, body, event_thread)
        return {"status": "accepted"}

    @app.post("/job_status")
    def job_status(request: JobStatusRequest) -> JSONResponse:
        job = wiring.training.status.job(request.job)
        if job is None:
            # Label Studio treats this status as a removed job.
            return JSONResponse({"error": "no such job"}, status_code=410)
        return JSONResponse(job)


async def _read_predict_request(request: Request) -> PredictRequest:
    """Parses the body without the accepted masks that come along with a task: no click needs them."""
    return _parsed(PredictRequest, without_masks(await request.body()))


def _parsed(model: type[P], body: bytes) -> P:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from None


async def _follow_in_order(wiring: Wiring, body: bytes, event_thread: CapacityLimiter) -> None:
    """Applies an event after its acknowledgement; its masks are parsed only now."""

    def follow() -> None:
        follow_webhook(wiring, Webhook.model_validate_json(body))

    await run_sync(follow, limiter=event_thread)


async def _explain_bad_request(_request: Request, error: Exception) -> JSONResponse:
    """Responds 400 with field and fault, never with the value, which may be a secret."""
    assert isinstance(error, RequestValidationError)
    faults = [
        {"field": ".".join(str(part) for part in e["loc"])[:200], "fault": e["msg"]}
        for e in error.errors()[:MAX_FAULTS]
    ]
    note(outcome="bad_request", faults=faults)
    return JSONResponse({"error": "bad_request", "faults": faults}, status_code=400)
