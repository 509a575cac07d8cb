"""Scripts, styles and templates of the pages, and the headers that pages are sent with.

Every page extends `templates/base.html` (header and navigation) or `templates/project_base.html` (the same, with the
navigation of one project). Jinja2 escapes every value; a value that a template does not get is an error.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from refcut_backend.errors import BadRequestError, RefCutError
from refcut_backend.label_studio.project_ids import number_of, project_name
from refcut_backend.logs import note

FOLDER = Path(__file__).parent
TEMPLATES = FOLDER / "templates"
STATIC = FOLDER / "static"
PAGE_HEADERS = {
    # Nothing from elsewhere and nothing inline. Masks come as JSON and are drawn on a canvas, so no image needs more.
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MainPage = Literal["playground", "projects", "status"]
"""Entries of the navigation in the header."""


@dataclass(frozen=True)
class ShownProject:
    """A project as pages show it.

    Attributes:
        name: "7", or "7#2" for the second project 7.
        label_studio: The project's page in Label Studio; empty if its address is not known.
    """

    name: str
    label_studio: str

    @classmethod
    def of(cls, project_id: int, label_studio: str) -> ShownProject:
        """A project at an address of Label Studio. What is no web address becomes no link."""
        is_web = urlsplit(label_studio).scheme in ("http", "https")
        page = f"{label_studio.rstrip('/')}/projects/{number_of(project_id)}/" if is_web else ""
        return cls(project_name(project_id), page)

    @property
    def path(self) -> str:
        """Path below which the project's pages are."""
        return f"/projects/{quote(self.name, safe='')}"


def page(template: str, here: MainPage | None, *, status_code: int = 200, **values: object) -> HTMLResponse:
    """Renders a page.

    Args:
        template: File name of the template.
        here: The entry of the navigation that the page belongs to; None for none.
        status_code: Status of the response.
        values: What the template shows. Pages of a project need `project` (ShownProject) and `subpage`
            ("references" or "training").
    """
    text = _templates().get_template(template).render(here=here, **values)
    return HTMLResponse(text, status_code, headers=PAGE_HEADERS)


def refusal(error: RefCutError) -> JSONResponse:
    """What a script of a page gets if its request cannot be done: the reason, and what helps."""
    note(outcome=error.code, problem=str(error))
    body = {"error": error.code, "message": error.message, "hint": error.hint}
    return JSONResponse(body, status_code=422)


def decoded(text: str) -> bytes:
    """Decodes a file in a request. Raises BadRequestError if it is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequestError("a file in the request is no base64", hint="reload the page") from None


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def static_routes() -> APIRouter:
    """The route of scripts and styles."""
    router = APIRouter()
    known = {path.name: path for path in STATIC.iterdir() if path.suffix in MEDIA_TYPES}

    @router.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in known:
            return Response(status_code=404)
        return FileResponse(known[name], media_type=MEDIA_TYPES[known[name].suffix])

    return router
