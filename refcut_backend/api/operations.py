"""The routes for operators: /livez and /readyz for probes, /metrics for Prometheus, /status.

Browsers get a page at /status (`pages/status.py`), programs JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from refcut_backend import __version__
from refcut_backend.api.metrics import Metrics, ReadQueueState
from refcut_backend.errors import QueueNotWritableError, QueueUnavailableError
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.training.status import TrainingStatus

PROBE_THREADS = 4
PATHS = ("/livez", "/readyz", "/metrics", "/status")


def operations(
    metrics: Metrics,
    read_queue_state: ReadQueueState,
    database_is_writable: Callable[[], bool],
    training: TrainingStatus,
    forgotten_masks: Callable[[], dict[int, int]],
    status_page: Callable[[Request], Response | None] = lambda _request: None,
) -> APIRouter:
    """Build the routes.

    Args:
        metrics: Counts and times of this process.
        read_queue_state: Reads the click queue; may raise QueueUnavailableError.
        database_is_writable: Whether a row can be written now; answers within seconds.
        training: Reads the trainings; may raise SQLAlchemyError.
        forgotten_masks: Counts the masks whose tick was forgotten, per project id; may raise SQLAlchemyError.
        status_page: The page at /status; None for a request that gets JSON.
    """
    router = APIRouter()
    # Of their own, so that a probe is answered however many requests wait for a database that is silent.
    probe_threads = CapacityLimiter(PROBE_THREADS)

    @router.api_route("/livez", methods=["GET", "HEAD"])
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz() -> JSONResponse:
        return await run_sync(check_readiness, limiter=probe_threads)

    def check_readiness() -> JSONResponse:
        workers, redis = 0, "up"
        try:
            workers = read_queue_state().ready_workers
        except QueueUnavailableError as error:
            redis = _problem(error)
        database = database_is_writable()
        body = {"redis": redis, "database": "up" if database else "down", "workers": workers}
        return JSONResponse(body, status_code=200 if workers and database else 503)

    @router.get("/metrics")
    def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/status", response_model=None)
    def status(request: Request, response: Response) -> Response | dict[str, Any]:
        page = status_page(request)
        if page is not None:
            return page
        response.headers["Vary"] = "Accept"
        return {
            "version": __version__,
            "model_version": metrics.versions.shared,
            "models_fallen_back": metrics.versions.fallen_back,
            "queue": _queue(read_queue_state),
            "training": _training(read_queue_state, training),
            "masks_without_tick": _masks_without_tick(forgotten_masks),
        } | metrics.summary()

    return router


def _problem(error: QueueUnavailableError) -> str:
    """What is wrong with Redis, for probes and people."""
    return f"not writable: {error.message}" if isinstance(error, QueueNotWritableError) else "down"


def _training(read_queue_state: ReadQueueState, training: TrainingStatus) -> dict[str, Any]:
    """Number of training workers and the run of each project; None where Redis or the database fails."""
    status: dict[str, Any] = {"workers": None, "projects": None}
    with suppress(QueueUnavailableError):
        status["workers"] = read_queue_state().training_workers
    with suppress(SQLAlchemyError):
        status["projects"] = training.summary()
    return status


def _masks_without_tick(counts: Callable[[], dict[int, int]]) -> dict[str, int] | None:
    """Number of masks that were submitted without the tick, per project; None where the database fails."""
    with suppress(SQLAlchemyError):
        return {project_name(project_id): count for project_id, count in counts().items()}
    return None


def _queue(read_queue_state: ReadQueueState) -> dict[str, Any]:
    try:
        state = read_queue_state()
    except QueueUnavailableError as error:
        return {"redis": _problem(error)}
    return {
        "redis": "up",
        "waiting": state.waiting,
        "oldest_waiting_s": state.oldest_waiting_s,
        "ready_workers": state.ready_workers,
        "expected_wait_s": state.expected_wait_s,
        "outcomes_of_all_web_servers": state.outcomes,
    }
