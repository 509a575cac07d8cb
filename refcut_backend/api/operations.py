"""What operators ask: /livez and /readyz for probes, /metrics for Prometheus, /status for people."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from refcut_backend import __version__
from refcut_backend.api.metrics import Metrics, ReadQueueState
from refcut_backend.errors import QueueUnavailableError
from refcut_backend.training.status import TrainingStatus

PATHS = ("/livez", "/readyz", "/metrics", "/status")


def operations(
    metrics: Metrics,
    read_queue_state: ReadQueueState,
    database_answers: Callable[[], bool],
    training: TrainingStatus,
) -> APIRouter:
    """The routes. database_answers: whether the database can be read now."""
    router = APIRouter()

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz")
    def readyz() -> JSONResponse:
        try:
            workers: int | None = read_queue_state().ready_workers
        except QueueUnavailableError:
            workers = None
        database = database_answers()
        said = {
            "redis": "down" if workers is None else "up",
            "database": "up" if database else "down",
            "workers": workers or 0,
        }
        return JSONResponse(said, status_code=200 if workers and database else 503)

    @router.get("/metrics")
    def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/status")
    def status() -> dict[str, Any]:
        return {
            "version": __version__,
            "model_version": metrics.versions.shared,
            "models_fallen_back": metrics.versions.fallen_back,
            "queue": _queue(read_queue_state),
            "training": _training(read_queue_state, training),
        } | metrics.summary()

    return router


def _training(read_queue_state: ReadQueueState, training: TrainingStatus) -> dict[str, Any]:
    """How many workers train, and each project's run; the database may fail and Redis be away."""
    said: dict[str, Any] = {"workers": None, "projects": None}
    with suppress(QueueUnavailableError):
        said["workers"] = read_queue_state().training_workers
    with suppress(SQLAlchemyError):
        said["projects"] = training.summary()
    return said


def _queue(read_queue_state: ReadQueueState) -> dict[str, Any]:
    try:
        state = read_queue_state()
    except QueueUnavailableError:
        return {"redis": "down"}
    return {
        "redis": "up",
        "waiting": state.waiting,
        "oldest_waiting_s": state.oldest_waiting_s,
        "ready_workers": state.ready_workers,
        "expected_wait_s": state.expected_wait_s,
        "outcomes_of_all_web_servers": state.outcomes,
    }
