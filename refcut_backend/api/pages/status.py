"""The status page, and the small page of clicks that annotators keep open beside Label Studio.

Both are kept up to date by server-sent events (`live.py`). For programs `/status` is JSON (`operations.py`).
"""

from __future__ import annotations

import base64
from typing import Annotated, Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from refcut_backend.api.pages.doctor import DoctorIsBusyError, DoctorRuns
from refcut_backend.api.pages.files import page
from refcut_backend.api.pages.live import EventStreams, TooManyStreamsError
from refcut_backend.api.pages.state import StateReader
from refcut_backend.clicks.preview import MaskPreview
from refcut_backend.clicks.speed import BIN_S, SPAN_S
from refcut_backend.errors import RefCutError
from refcut_backend.references.parse import mask_to_png
from refcut_backend.wiring import Wiring

THREADS = 4
"""Pages are read by few people; clicks have threads of their own."""
PREVIEW_THREADS = 1
PASSED_ON_AT_ONCE = {"X-Accel-Buffering": "no"}
"""Else nginx collects events until they fill a buffer, which takes minutes."""
TaskId = Annotated[int, Query(ge=0, lt=2**53)]


def wants_page(request: Request) -> bool:
    """Whether a request comes from a browser's address bar, and not from a program that reads JSON."""
    return "text/html" in request.headers.get("accept", "")


def status_page() -> Response:
    """The page at /status."""
    shown = page("status.html", "status")
    shown.headers["Vary"] = "Accept"
    return shown


def status_routes(wiring: Wiring, doctor: DoctorRuns | None = None) -> APIRouter:
    """The routes of what both pages show.

    Args:
        wiring: What they read.
        doctor: Runs the checks; by default `refcut doctor`.
    """
    router = APIRouter(prefix="/status")
    threads, preview_threads = CapacityLimiter(THREADS), CapacityLimiter(PREVIEW_THREADS)
    streams = EventStreams(wiring.recent_clicks.latest, StateReader(wiring).read, threads)
    doctor = doctor or DoctorRuns()

    @router.api_route("/clicks", methods=["GET", "HEAD"])
    async def clicks() -> Response:
        return page("clicks.html", "status")

    @router.get("/events")
    async def events() -> Response:
        try:
            return StreamingResponse(
                streams.open(), media_type="text/event-stream", headers=PASSED_ON_AT_ONCE
            )
        except TooManyStreamsError:
            return _busy("as many pages are open as may be", "close another page of this backend")

    @router.get("/speed")
    async def speed() -> Response:
        found = await run_sync(wiring.click_speed.last_hour, limiter=threads)
        return JSONResponse({"span_s": SPAN_S, "step_s": BIN_S, "steps": [vars(one) for one in found]})

    @router.get("/mask")
    async def mask(project: str, task: TaskId, region: str) -> Response:
        def read() -> MaskPreview | None:
            return wiring.previews.of(wiring.projects.find(project), task, region)

        try:
            found = await run_sync(read, limiter=preview_threads)
        except RefCutError:
            found = None
        return JSONResponse(None if found is None else _shown_preview(found))

    @router.post("/doctor")
    async def run_doctor() -> Response:
        try:
            return StreamingResponse(doctor.start(), media_type="application/x-ndjson")
        except DoctorIsBusyError:
            return _busy("the checks are running already", "wait for their end")

    return router


def _busy(message: str, hint: str) -> Response:
    return JSONResponse({"error": "busy", "message": message, "hint": hint}, status_code=503)


def _shown_preview(found: MaskPreview) -> dict[str, Any]:
    box = found.box
    return {
        "mask": base64.b64encode(mask_to_png(found.mask_hw)).decode(),
        "clicks": [[one.x_percent, one.y_percent, one.positive] for one in found.clicks],
        "box": None if box is None else [box.left, box.top, box.right, box.bottom],
    }
