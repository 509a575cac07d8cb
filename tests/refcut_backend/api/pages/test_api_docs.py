from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from refcut_backend.api.app import create_app
from refcut_backend.api.auth import Access
from refcut_backend.api.openapi import described
from refcut_backend.settings import Settings
from tests.support.backend_fixtures import LIMIT_BYTES

BROWSER = {"Accept": "text/html"}
PATHS = ("/docs", "/openapi.json")


@pytest.fixture
def here(wiring) -> Iterator[TestClient]:
    """A browser on the machine of the backend."""
    with TestClient(create_app(wiring, LIMIT_BYTES), client=("127.0.0.1", 50000)) as client:
        yield client


def test_the_page_shows_each_route_under_the_policy_of_all_pages_without_a_script(here: TestClient) -> None:
    page = here.get("/docs", headers=BROWSER)
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    for method, path in described():
        assert f'<b class="method">{method}</b> <code class="path">{path}</code>' in page.text
    assert "style=" not in page.text
    assert "<script>" not in page.text
    assert "https://" not in page.text


def test_a_form_that_the_page_links_to_is_on_the_page(here: TestClient) -> None:
    page = here.get("/docs", headers=BROWSER).text
    assert '<a href="#form-TaskPayload">list of TaskPayload</a>' in page
    assert '<h3 id="form-TaskPayload">' in page


def test_programs_get_the_document(here: TestClient) -> None:
    answer = here.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()["paths"]) == {path for _, path in described()}


def test_both_need_the_password_and_a_browser_is_led_to_the_form(wiring) -> None:
    access = Access.of(Settings(basic_auth_user="team", basic_auth_password="sesame"))
    with TestClient(create_app(wiring, LIMIT_BYTES, access), follow_redirects=False) as client:
        for path in PATHS:
            assert client.get(path).status_code == 401
            assert client.get(path, auth=("team", "sesame")).status_code == 200
            assert client.get(path, headers=BROWSER).headers["location"].startswith("/login?next=")


def test_without_a_password_they_are_for_this_machine_alone(wiring) -> None:
    with TestClient(create_app(wiring, LIMIT_BYTES), client=("192.0.2.7", 50000)) as client:
        assert [client.get(path).status_code for path in PATHS] == [403, 403]
