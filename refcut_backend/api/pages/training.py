"""The page of a project's trainings, and its actions: train now, promote a version, roll back.

The actions call what `refcut train` and `refcut models` call. Each names the version that the page showed as serving, so
that two people, or a double click, do not undo each other's action.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from refcut_backend.api.bodies import JsonReader
from refcut_backend.api.pages.files import page, refusal
from refcut_backend.api.pages.projects import find_project, problem_page, shown_project
from refcut_backend.errors import ModelStoreError, QueueUnavailableError, RefCutError
from refcut_backend.logs import note
from refcut_backend.training.runs import RequestedBy
from refcut_backend.wiring import Wiring

log = logging.getLogger("refcut.models")

THREADS = 4
Version = Annotated[str, Field(max_length=200)]


class StartTraining(BaseModel):
    """Asks for a training now."""


class ChangeVersion(BaseModel):
    """Asks for another version to serve.

    Attributes:
        serving: What serves, as the page showed it.
        version: What is to serve; None for what served before.
    """

    serving: Version
    version: Version | None = None


def training_routes(wiring: Wiring, bodies: JsonReader) -> APIRouter:
    """The routes of the page.

    Args:
        wiring: What the page reads, and what its actions call.
        bodies: Reads the requests.
    """
    router = APIRouter(prefix="/projects/{name}/training")
    threads = CapacityLimiter(THREADS)
    actions = _Actions(wiring)

    async def answered(work: Callable[..., Any], name: str, *arguments: object) -> Response:
        def of_project() -> Any:
            return work(find_project(wiring.projects, name).project_id, *arguments)

        try:
            return JSONResponse(await run_sync(of_project, limiter=threads))
        except RefCutError as error:
            return refusal(error)

    @router.api_route("", methods=["GET", "HEAD"])
    async def training(name: str) -> Response:
        try:
            known = await run_sync(find_project, wiring.projects, name, limiter=threads)
        except RefCutError as error:
            return problem_page(error)
        return page("training.html", "projects", project=shown_project(known), subpage="training")

    @router.get("/progress")
    async def progress(name: str) -> Response:
        return await answered(actions.progress, name)

    @router.get("/history")
    async def history(name: str) -> Response:
        return await answered(wiring.training_reports.history, name)

    @router.get("/pictures/{version}/{file}")
    async def picture(name: str, version: str, file: str) -> Response:
        def read() -> bytes:
            return wiring.training_reports.picture(
                find_project(wiring.projects, name).project_id, version, file
            )

        try:
            return Response(await run_sync(read, limiter=threads), media_type="image/png")
        except RefCutError as error:
            return problem_page(error)

    @router.post("/start")
    async def start(name: str, http: Request) -> Response:
        await bodies.read(StartTraining, http)
        return await answered(actions.start, name)

    @router.post("/serve")
    async def serve(name: str, http: Request) -> Response:
        return await answered(actions.serve, name, await bodies.read(ChangeVersion, http))

    return router


class _Actions:
    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    def progress(self, project_id: int) -> dict[str, Any]:
        workers: int | None = None
        try:
            workers = self._wiring.queue_state().training_workers
        except QueueUnavailableError as error:
            note(problem=str(error))
        return self._wiring.training_reports.progress(project_id) | {"training_workers": workers}

    def start(self, project_id: int) -> dict[str, Any]:
        run, is_new = self._wiring.training.requests.request(project_id, RequestedBy.PAGE)
        return {"run": run.id, "is_new": is_new}

    def serve(self, project_id: int, wanted: ChangeVersion) -> dict[str, Any]:
        store = self._wiring.model_store
        shared = self._wiring.versions.shared
        serving = store.current(project_id) or shared
        if serving != wanted.serving:
            raise ModelStoreError(f"{serving} serves by now", hint="look at the page again, then decide")
        if wanted.version is None:
            now = store.rollback(project_id) or shared
        else:
            store.promote(project_id, wanted.version)
            now = wanted.version
        log.info("another version serves", extra={"project": project_id, "version": now, "before": serving})
        return {"serving": now}
