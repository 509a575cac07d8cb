"""The HTTP server that Label Studio calls: routes, order of the middleware, threads per kind of request.

Routes: /health, /setup, /predict, /webhook, /versions, /job_status here, those of `operations.py`, and the pages.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import label_studio_sdk.base_client  # noqa: F401 - takes .2 s, which no click and no webhook should wait for
from anyio import CapacityLimiter, move_on_after
from anyio.to_thread import run_sync
from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.routing import Route

from refcut_backend import __version__
from refcut_backend.api.auth import Access, Guard, PageAccess, is_open
from refcut_backend.api.bodies import BODY, Body, BodyLimit, JsonReader
from refcut_backend.api.handlers import (
    answer_predict,
    answer_setup,
    answer_start_training,
    answer_too_late,
    compare_project,
    follow_webhook,
    prepare_task,
)
from refcut_backend.api.hosts import AllowedNames, HostCheck
from refcut_backend.api.metrics import Metrics
from refcut_backend.api.middleware import JsonOnly, RequestLine, SafeHeaders, SameOrigin
from refcut_backend.api.operations import PATHS, operations
from refcut_backend.api.pages.api_docs import docs_routes
from refcut_backend.api.pages.files import static_routes
from refcut_backend.api.pages.live import click_of
from refcut_backend.api.pages.login import login_routes
from refcut_backend.api.pages.playground import home_route, playground_routes
from refcut_backend.api.pages.projects import projects_routes
from refcut_backend.api.pages.references import references_routes
from refcut_backend.api.pages.status import status_page, status_routes, wants_page
from refcut_backend.api.pages.training import training_routes
from refcut_backend.api.pages.worth import worth_routes
from refcut_backend.api.sessions import LoginAttempts, Sessions
from refcut_backend.errors import BadRequestError, DatabaseFailsError
from refcut_backend.label_studio.payloads import JobStatusRequest, PredictRequest, SetupRequest, Webhook
from refcut_backend.logs import SeldomLog, note
from refcut_backend.training.requests import START_TRAINING
from refcut_backend.wiring import Wiring

log = logging.getLogger("refcut.web")

CLICK_THREADS = 250
"""More than may wait (REFCUT_CLICK_QUEUE_LIMIT), so that a click which is refused never waits for a thread."""
CLICK_GRACE_S = 0.5
"""Added to a click's deadline: the queue, which usually ends a click, knows the reason better."""
PRELABEL_THREADS = 20
TASK_THREADS = 20
MAX_WAITING_WEBHOOKS = 300
"""Further webhooks are not applied; the comparison of their project finds what they reported."""
MAX_FAULTS = 20
THREADS_SWITCH_AFTER_S = 0.0005
"""For `sys.setswitchinterval` in this process: a tenth of Python's default, so that a thread that decodes the masks of a
webhook delays the threads that answer clicks less."""


def create_app(
    wiring: Wiring,
    request_max_bytes: int,
    access: Access | None = None,
    hosts: AllowedNames | None = None,
) -> FastAPI:
    """Build the application.

    Args:
        wiring: What the routes use. Its threads run as long as the application does.
        request_max_bytes: Larger bodies are refused with 413.
        access: Credentials that requests must carry; by default none.
        hosts: Host names that requests may use; by default those that nobody else can own.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        started = (wiring.reconcile, wiring.training.thread, wiring.next_tasks)
        threads = [thread for thread in started if thread is not None]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            await run_sync(thread.stop)
        await run_sync(wiring.recent_clicks.stop)

    # The document is `openapi.py`'s: FastAPI knows neither the bodies, which are read by hand, nor the answers.
    app = FastAPI(title="RefCut for Label Studio", version=__version__, openapi_url=None, lifespan=lifespan)
    bodies = JsonReader()
    _add_label_studio_routes(app, wiring, bodies)
    paths = [route.path for route in app.routes if isinstance(route, Route)]
    training = wiring.training.status
    metrics = Metrics(wiring.versions, [*paths, *PATHS], wiring.queue_state, training)
    access = access or Access()
    sessions, attempts = Sessions(access.basic), LoginAttempts()
    may_see_pages = PageAccess(access)

    def page_for(request: Request) -> Response | None:
        return status_page() if wants_page(request) and may_see_pages.allows(request) else None

    def observe(fields: dict[str, Any]) -> None:
        metrics.observe(fields)
        click = click_of(fields)
        if click is not None:
            wiring.recent_clicks.add(click)

    local_or_password = [Depends(may_see_pages)]
    pages = (
        home_route(),
        static_routes(),
        playground_routes(wiring.playground, bodies),
        projects_routes(wiring.projects, wiring.references),
        status_routes(wiring),
        training_routes(wiring, bodies),
        login_routes(access, sessions, attempts, bodies),
        references_routes(wiring, bodies),
        worth_routes(wiring, bodies),
        docs_routes(),
    )
    for router in pages:
        app.include_router(router, dependencies=local_or_password)
    app.include_router(
        operations(
            metrics,
            wiring.queue_state,
            wiring.database_is_writable,
            training,
            wiring.forgotten_masks,
            page_for,
        )
    )
    # The middleware that is added last is the outermost.
    app.add_middleware(BodyLimit, max_bytes=request_max_bytes, is_open=is_open)
    app.add_middleware(JsonOnly)
    app.add_middleware(SameOrigin)
    app.add_middleware(Guard, access=access, sessions=sessions, attempts=attempts)
    app.add_middleware(HostCheck, allowed=hosts or AllowedNames())
    app.add_middleware(RequestLine, observe=observe)
    app.add_middleware(SafeHeaders)
    app.add_exception_handler(RequestValidationError, _explain_bad_request)
    app.add_exception_handler(SQLAlchemyError, _explain_database)
    app.add_exception_handler(DatabaseFailsError, _explain_database)
    return app


def _add_label_studio_routes(app: FastAPI, wiring: Wiring, bodies: JsonReader) -> None:
    # Nothing that may hang runs on the event loop, and each kind of request has threads of its own: where one kind waits
    # for a slow worker or a silent database, the others are still answered.
    click_threads = CapacityLimiter(CLICK_THREADS)
    prelabel_threads = CapacityLimiter(PRELABEL_THREADS)
    task_threads = CapacityLimiter(TASK_THREADS)
    webhooks = _WaitingWebhooks(wiring)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "RefCut"}

    @app.post("/setup")
    async def setup(http: Request) -> dict[str, str]:
        return await run_sync(answer_setup, wiring, await bodies.read(SetupRequest, http))

    @app.api_route("/versions", methods=["GET", "POST"])
    async def versions() -> dict[str, list[str]]:
        return {"versions": wiring.versions.all()}

    @app.post("/predict")
    async def predict(http: Request, response: Response, background: BackgroundTasks) -> dict[str, Any]:
        request = await bodies.read(PredictRequest, http)
        if request.params.context is None:
            background.add_task(prepare, request)
            threads = prelabel_threads if wiring.batches.is_on else task_threads
            return await run_sync(answer_predict, wiring, request, response, limiter=threads)
        with move_on_after(wiring.click_timeout_s + CLICK_GRACE_S):
            return await run_sync(
                answer_predict, wiring, request, response, limiter=click_threads, abandon_on_cancel=True
            )
        return answer_too_late(wiring, response)

    async def prepare(request: PredictRequest) -> None:
        await run_sync(prepare_task, wiring, request, limiter=task_threads)

    @app.post("/webhook")
    async def webhook(http: Request, background: BackgroundTasks) -> dict[str, Any]:
        event = await bodies.read(Webhook, http)
        note(action=event.action, project=event.project.id if event.project else None)
        if event.action == START_TRAINING and event.project is not None:
            return await run_sync(answer_start_training, wiring, event.project.ref)
        if webhooks.has_room:
            background.add_task(webhooks.follow, http.scope[BODY])
        else:
            background.add_task(webhooks.compare_instead, event)
        return {"status": "accepted"}

    @app.post("/job_status")
    async def job_status(http: Request) -> JSONResponse:
        request = await bodies.read(JobStatusRequest, http)
        job = await run_sync(wiring.training.status.job, request.job)
        if job is None:
            # Label Studio treats this status as a removed job.
            return JSONResponse({"error": "no such job"}, status_code=410)
        return JSONResponse(job)


class _WaitingWebhooks:
    """Webhooks that were acknowledged and are applied one at a time, in order: their masks must not delay clicks."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._thread = CapacityLimiter(1)
        self._waiting = 0
        self._overflow = SeldomLog(log)

    @property
    def has_room(self) -> bool:
        """Whether another webhook may wait."""
        return self._waiting < MAX_WAITING_WEBHOOKS

    async def compare_instead(self, event: Webhook) -> None:
        """Has the project of a webhook compared with Label Studio, which finds what the webhook reported."""
        self._overflow.warning("too many webhooks wait: their projects are compared instead")
        await run_sync(compare_project, self._wiring, event)

    async def follow(self, body: Body) -> None:
        """Applies an event after its acknowledgement; its masks are parsed only now."""

        def apply() -> None:
            try:
                webhook = Webhook.model_validate_json(body.read())
            except ValidationError as error:
                # Everything but the masks was checked before. The text of the error would repeat them.
                first = error.errors(include_url=False, include_input=False, include_context=False)[0]
                log.warning(
                    "webhook not used", extra={"reason": BadRequestError.code, "problem": first["type"]}
                )
                return
            follow_webhook(self._wiring, webhook)

        self._waiting += 1
        try:
            await run_sync(apply, limiter=self._thread)
        finally:
            self._waiting -= 1


async def _explain_database(_request: Request, error: Exception) -> JSONResponse:
    """Responds 503: the database is locked, full or restarting. The log line has the kind of the error, no traceback."""
    hint = "try again; check the database's disk, and REFCUT_DATABASE_URL"
    note(outcome=DatabaseFailsError.code, problem=type(error.__cause__ or error).__name__)
    return JSONResponse({"error": DatabaseFailsError.code, "hint": hint}, status_code=503)


async def _explain_bad_request(_request: Request, error: Exception) -> JSONResponse:
    """Responds 400 with field and fault, never with the value, which may be a secret."""
    assert isinstance(error, RequestValidationError)
    faults = [
        {"field": ".".join(str(part) for part in e["loc"])[:200], "fault": e["msg"]}
        for e in error.errors()[:MAX_FAULTS]
    ]
    note(outcome="bad_request", faults=faults)
    return JSONResponse({"error": "bad_request", "faults": faults}, status_code=400)
