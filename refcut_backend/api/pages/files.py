"""Scripts, styles and templates of the pages, and the headers that pages are sent with."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

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
