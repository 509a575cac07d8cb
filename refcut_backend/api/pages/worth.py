"""What references are worth, on the page with the references of a project: start, stop, progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from refcut_backend.api.bodies import JsonReader
from refcut_backend.api.pages.files import refusal
from refcut_backend.api.pages.projects import find_project
from refcut_backend.errors import RefCutError
from refcut_backend.wiring import Wiring
from refcut_backend.worth.store import WorthRun

THREADS = 2


class WantedFigures(BaseModel):
    """References to measure: those of a label, or all of the project."""

    label: Annotated[str, Field(min_length=1, max_length=500)] | None = None


class Nothing(BaseModel):
    """A request without fields, sent as JSON so that a form of another site cannot send it."""


def worth_routes(wiring: Wiring, bodies: JsonReader) -> APIRouter:
    """The routes that measure references.

    Args:
        wiring: Its measurements are started and shown.
        bodies: Reads the requests.
    """
    router = APIRouter(prefix="/projects/{project}/references/worth")
    threads = CapacityLimiter(THREADS)
    worths = wiring.reference_worths

    async def answered(work: Callable[[int], Any], name: str) -> Response:
        def of_project() -> Any:
            return work(find_project(wiring.projects, name).project_id)

        try:
            return JSONResponse(await run_sync(of_project, limiter=threads))
        except RefCutError as error:
            return refusal(error)

    @router.get("")
    async def progress(project: str) -> Response:
        return await answered(lambda project_id: _shown(worths.store.latest(project_id)), project)

    @router.post("")
    async def start(project: str, http: Request) -> Response:
        wanted = await bodies.read(WantedFigures, http)
        return await answered(lambda project_id: _shown(worths.start(project_id, wanted.label)[0]), project)

    @router.post("/stop")
    async def stop(project: str, http: Request) -> Response:
        await bodies.read(Nothing, http)
        return await answered(lambda project_id: {"stopped": worths.store.stop(project_id)}, project)

    return router


def _shown(run: WorthRun | None) -> dict[str, Any]:
    if run is None:
        return {"run": None}
    return {
        "run": run.id,
        "label": run.label,
        "step": run.step,
        "steps": run.steps,
        "outcome": run.outcome,
        "message": run.message,
        "problems": list(run.problems),
    }
