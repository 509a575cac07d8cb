"""The playground: its page, and what the page asks for. Masks and photographs travel as base64 in JSON.

All requests that change something are JSON (`api/middleware.py`, JsonOnly), which a page of another site cannot send.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from refcut_backend.api.bodies import JsonReader
from refcut_backend.api.pages.files import decoded, page, refusal
from refcut_backend.errors import BadRequestError, RefCutError
from refcut_backend.label_studio.prompts import PercentBox, PercentClick
from refcut_backend.playground import demo
from refcut_backend.playground.clicks import MAX_REFERENCES
from refcut_backend.playground.service import KeptMask, KeptReference, MarkedReference, Photograph, Playground
from refcut_backend.references.parse import mask_to_png

THREADS = 20
DECODING_THREADS = 2
"""A large photograph takes up to REFCUT_IMAGE_MAX_MEMORY_BYTES to decode, so few are decoded at once."""
MEDIA_TYPES = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png", b"RI": "image/webp", b"BM": "image/bmp"}
Percent = Annotated[float, Field(ge=0, le=100)]
Key = Annotated[str, Field(max_length=60)]
Name = Annotated[str, Field(max_length=300)]
Base64 = Annotated[str, Field(max_length=30 * 2**20)]
R = TypeVar("R")


class NewPhotograph(BaseModel):
    """A photograph to put on the playground: a file, or the name of one of the demo's."""

    data: Base64 | None = None
    demo: Annotated[str, Field(max_length=100)] | None = None


class WantedPhotograph(BaseModel):
    """Asks for the file of a photograph."""

    image: Key


class NewReference(BaseModel):
    """A reference: masks on a photograph, or a part of a demo photograph."""

    image: Key | None = None
    positive: Base64 | None = None
    negative: Base64 | None = None
    demo: Annotated[str, Field(max_length=100)] | None = None
    label: Annotated[str, Field(max_length=100)] | None = None


class ClickPoint(BaseModel):
    """A click in percent of the photograph."""

    x: Percent
    y: Percent
    positive: bool = True


class ClickBox(BaseModel):
    """A box in percent of the photograph."""

    left: Percent
    top: Percent
    right: Percent
    bottom: Percent


class ClickRequest(BaseModel):
    """The clicks of one object."""

    image: Key
    session: Key
    clicks: Annotated[list[ClickPoint], Field(max_length=200)] = []
    box: ClickBox | None = None
    references: Annotated[list[Key], Field(max_length=50)] = []
    extent: Annotated[int, Field(ge=-2, le=2)] = 0
    wants_map: bool = False


class PreloadRequest(BaseModel):
    """A photograph that is shown, and the references that clicks on it will name."""

    image: Key
    references: Annotated[list[Key], Field(max_length=50)] = []


class WantedReference(BaseModel):
    """A reference to write to a file, and the name of its photograph."""

    reference: Key
    name: Name


class WantedTasks(BaseModel):
    """A mask to write to a file for Label Studio."""

    image: Key
    name: Name
    region: Key
    label: Annotated[str, Field(min_length=1, max_length=500)]
    mask: Base64
    score: Annotated[float, Field(ge=0, le=1)]
    model_version: Annotated[str, Field(max_length=200)]
    references: Annotated[list[WantedReference], Field(max_length=MAX_REFERENCES)] = []


def home_route() -> APIRouter:
    """The page itself, at /."""
    router = APIRouter()

    @router.api_route("/", methods=["GET", "HEAD"])
    async def home() -> Response:
        return page("playground.html", "playground")

    return router


def playground_routes(playground: Playground, bodies: JsonReader) -> APIRouter:
    """The routes of the playground.

    Args:
        playground: Does the work.
        bodies: Reads the requests.
    """
    router = APIRouter(prefix="/playground")
    threads, decoding = CapacityLimiter(THREADS), CapacityLimiter(DECODING_THREADS)

    async def answered(
        work: Callable[..., R],
        *arguments: object,
        show: Callable[[R], Any],
        limiter: CapacityLimiter = threads,
    ) -> Response:
        try:
            return JSONResponse(show(await run_sync(work, *arguments, limiter=limiter)))
        except RefCutError as error:
            return refusal(error)

    @router.get("/demo")
    async def demo_list() -> Response:
        return await answered(_demo_list, show=lambda found: found)

    @router.post("/images")
    async def add_image(http: Request) -> Response:
        return await answered(
            _add_image,
            playground,
            await bodies.read(NewPhotograph, http),
            show=_shown_photograph,
            limiter=decoding,
        )

    @router.post("/photograph")
    async def photograph(http: Request) -> Response:
        # The key stands in the body: whoever has it sees the photograph, so it must not be in an address or a log.
        wanted = await bodies.read(WantedPhotograph, http)
        try:
            data = await run_sync(playground.uploads.read, wanted.image, limiter=threads)
        except RefCutError as error:
            return refusal(error)
        return Response(data, media_type=MEDIA_TYPES.get(data[:2], "application/octet-stream"))

    @router.post("/references")
    async def add_reference(http: Request) -> Response:
        return await answered(
            _add_reference,
            playground,
            await bodies.read(NewReference, http),
            show=_shown_reference,
            limiter=decoding,
        )

    @router.post("/clicks")
    async def click(http: Request) -> Response:
        return await answered(
            _click, playground, await bodies.read(ClickRequest, http), show=lambda found: found
        )

    @router.post("/preloads")
    async def preload(http: Request) -> Response:
        wanted = await bodies.read(PreloadRequest, http)
        return await answered(
            playground.clicks.preload, wanted.image, wanted.references, show=lambda asked: {"asked": asked}
        )

    @router.post("/tasks")
    async def tasks(http: Request) -> Response:
        return await answered(
            _tasks,
            playground,
            await bodies.read(WantedTasks, http),
            show=lambda found: found,
            limiter=decoding,
        )

    return router


def _demo_list() -> dict[str, Any]:
    return {
        "photographs": [
            {
                "name": one.name,
                "kind": one.kind,
                "labels": [part.label for part in demo.parts(one.name)],
            }
            for one in demo.photographs()
        ]
    }


def _add_image(playground: Playground, request: NewPhotograph) -> Photograph:
    if request.demo is not None:
        return playground.demo_photograph(request.demo)
    if request.data is None:
        raise BadRequestError("there is no photograph in the request", hint="send `data` or `demo`")
    return playground.add(decoded(request.data))


def _add_reference(playground: Playground, request: NewReference) -> MarkedReference:
    if request.demo is not None and request.label is not None:
        return playground.demo_reference(request.demo, request.label)
    if request.image is None or request.positive is None:
        raise BadRequestError("there is no mask in the request", hint="send `image` and `positive`")
    negative = None if request.negative is None else decoded(request.negative)
    return playground.mark(request.image, decoded(request.positive), negative)


def _tasks(playground: Playground, request: WantedTasks) -> list[dict[str, Any]]:
    return playground.tasks(
        KeptMask(
            request.image,
            request.name,
            request.region,
            request.label,
            decoded(request.mask),
            request.score,
            request.model_version,
            tuple(KeptReference(one.reference, one.name) for one in request.references),
        )
    )


def _click(playground: Playground, request: ClickRequest) -> dict[str, Any]:
    box = request.box
    found = playground.clicks.answer(
        request.image,
        request.session,
        [PercentClick(one.x, one.y, one.positive) for one in request.clicks],
        None if box is None else PercentBox(box.left, box.top, box.right, box.bottom),
        request.references,
        request.extent,
        wants_map=request.wants_map,
    )
    return {
        "mask": base64.b64encode(mask_to_png(found.mask_hw)).decode(),
        "expected_iou": round(found.expected_iou, 4),
        "model_version": found.model_version,
        "milliseconds": found.milliseconds,
        "map": found.map_png,
    }


def _shown_photograph(found: Photograph) -> dict[str, Any]:
    return {"image": found.key, "height": found.height, "width": found.width}


def _shown_reference(found: MarkedReference) -> dict[str, str]:
    return {"reference": found.name, "outline": base64.b64encode(found.outline_png).decode()}
