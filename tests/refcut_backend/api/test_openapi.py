from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute, Route

from refcut_backend.api.app import create_app
from refcut_backend.api.openapi import OPERATIONS_LIST, Operation, described, document
from tests.support.backend_fixtures import LIMIT_BYTES

PAGES = re.compile(r"/$|/(static|playground|projects|status/|login|logout|docs|openapi.json)")


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """Method and path of each route that is not behind a page."""

    def all_of(found: list[BaseRoute]) -> list[Route]:
        routers = [route.original_router for route in found if hasattr(route, "original_router")]
        return [route for route in found if isinstance(route, Route)] + [
            route for router in routers for route in all_of(router.routes)
        ]

    return {
        (method, route.path)
        for route in all_of(app.routes)
        for method in route.methods or ()
        if method != "HEAD" and not PAGES.match(route.path)
    }


def named(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def test_each_route_of_label_studio_and_operators_is_described_and_no_other(wiring) -> None:
    assert set(described()) == routes(create_app(wiring, LIMIT_BYTES))


@pytest.mark.parametrize("operation", OPERATIONS_LIST, ids=named)
def test_the_example_of_a_request_is_answered_as_its_description_promises(
    client, operation: Operation
) -> None:
    body = {} if operation.example is None else operation.example
    answer = client.request(
        operation.method, operation.path, json=body if operation.method == "POST" else None
    )
    (promised,) = [one for one in operation.answers if one.status == answer.status_code]
    assert answer.headers["content-type"].split(";")[0] == promised.media_type.split(";")[0]
    if isinstance(promised.example, dict):
        assert set(promised.example) <= set(answer.json())


@pytest.mark.parametrize("operation", [one for one in OPERATIONS_LIST if one.body], ids=named)
def test_a_body_of_another_form_is_refused_as_described(client, operation: Operation) -> None:
    assert client.post(operation.path, json=[]).status_code == 400
    assert client.post(operation.path, content="a=1").status_code == 415
    answers = document()["paths"][operation.path]["post"]["responses"]
    assert {"400", "413", "415", "401", "429"} <= set(answers)


def test_every_reference_in_the_document_leads_to_a_form() -> None:
    found = document()

    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if "$ref" in part else set()
            return own.union(*(references(one) for one in part.values()))
        return set().union(*(references(one) for one in part)) if isinstance(part, list) else set()

    forms = found["components"]["schemas"]
    assert references(found)
    assert {name.removeprefix("#/components/schemas/") for name in references(found)} <= set(forms)


def test_a_field_has_the_meaning_that_its_class_gives_it() -> None:
    forms = document()["components"]["schemas"]
    assert forms["SetupRequest"]["properties"]["schema"]["description"] == "The project's label config (XML)."
    assert forms["Webhook"]["properties"]["tasks"]["description"] == "Tasks that were deleted."
    assert "Attributes" not in str(forms)
