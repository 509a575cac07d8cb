"""The page /docs: the routes of Label Studio and of operators, from the OpenAPI document; and the document itself.

The page is rendered here, without a script: FastAPI's own page loads one from another machine, and the pages' policy
forbids the inline styles of such viewers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from refcut_backend.api.openapi import document
from refcut_backend.api.pages.files import page

DOCS, OPENAPI = "/docs", "/openapi.json"
SHAPES = "#/components/schemas/"


@dataclass(frozen=True)
class ShownField:
    """A field of a JSON object.

    Attributes:
        kinds: Its types: each a text, and the name of a form that the text links to, or "".
        meaning: One sentence, or "".
    """

    name: str
    kinds: list[tuple[str, str]]
    is_required: bool
    meaning: str


@dataclass(frozen=True)
class ShownForm:
    """A form of a JSON object."""

    name: str
    meaning: str
    fields: list[ShownField]


@dataclass(frozen=True)
class ShownAnswer:
    """An answer of a route.

    Attributes:
        example: A body.
    """

    status: str
    meaning: str
    headers: list[tuple[str, str]]
    example: str


@dataclass(frozen=True)
class ShownOperation:
    """A route with one method.

    Attributes:
        key: Names it in addresses.
        form: Name of the form of its body; "" without one.
        example: A body.
    """

    key: str
    method: str
    path: str
    summary: str
    description: str
    needs: list[str]
    form: str
    example: str
    answers: list[ShownAnswer]


NEEDS = {"password": "the password", "secret": "the secret of webhooks"}


def docs_routes() -> APIRouter:
    """The routes of page and document."""
    router = APIRouter()

    @router.api_route(DOCS, methods=["GET", "HEAD"])
    async def docs() -> Response:
        sections, forms = _shown()
        return page("docs.html", None, sections=sections, forms=forms, openapi=OPENAPI)

    @router.api_route(OPENAPI, methods=["GET", "HEAD"])
    async def openapi() -> Response:
        return JSONResponse(document())

    return router


@cache
def _shown() -> tuple[list[tuple[str, str, list[ShownOperation]]], list[ShownForm]]:
    found = document()
    operations = [
        (operation["tags"][0], _operation(path, method.upper(), operation))
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    ]
    sections = [
        (tag["name"], tag["description"], [shown for name, shown in operations if name == tag["name"]])
        for tag in found["tags"]
    ]
    return sections, [_form(name, schema) for name, schema in found["components"]["schemas"].items()]


def _operation(path: str, method: str, operation: dict[str, Any]) -> ShownOperation:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return ShownOperation(
        operation["operationId"],
        method,
        path,
        operation["summary"],
        operation["description"],
        [NEEDS[name] for entry in operation["security"] for name in entry],
        body["schema"]["$ref"].removeprefix(SHAPES) if body else "",
        _text(body["example"]) if body else "",
        [_answer(status, answer) for status, answer in operation["responses"].items()],
    )


def _answer(status: str, answer: dict[str, Any]) -> ShownAnswer:
    headers = [(name, header["description"]) for name, header in answer.get("headers", {}).items()]
    ((_, content),) = answer["content"].items()
    return ShownAnswer(status, answer["description"], headers, _text(content["example"]))


def _form(name: str, schema: dict[str, Any]) -> ShownForm:
    required = schema.get("required", ())
    fields = [
        ShownField(field, _kinds(one), field in required, one.get("description", ""))
        for field, one in schema.get("properties", {}).items()
    ]
    return ShownForm(name, schema.get("description", ""), fields)


def _kinds(schema: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    """The types that a schema allows, in words."""
    if "anyOf" in schema:
        return [kind for one in schema["anyOf"] for kind in _kinds(one, before)]
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(SHAPES)
        return [(f"{before}{name}", name)]
    if schema.get("type") == "array":
        return _kinds(schema.get("items", {}), f"{before}list of ")
    return [(f"{before}{schema.get('type', 'anything')}", "")]


def _text(example: object) -> str:
    return example if isinstance(example, str) else json.dumps(example, indent=2)
