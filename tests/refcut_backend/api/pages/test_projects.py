"""The page with all projects."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from refcut_backend.api.app import create_app
from refcut_backend.api.pages.projects import find_project
from refcut_backend.errors import ConfigError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import Webhook
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.label_studio_api import LabelStudioApi
from tests.support.recorded import LABEL_CONFIG
from tests.support.registry import DOOR, WHEEL, marked


@pytest.fixture
def here(wiring):
    """A browser on the machine of the backend."""
    with TestClient(create_app(wiring, LIMIT_BYTES), client=("127.0.0.1", 50000)) as client:
        yield client


def test_every_project_is_listed_with_a_link_into_its_label_studio(here: TestClient, wiring) -> None:
    wiring.projects.remember(7, Connection("https://labels.example/base/", "t"), "", "1795349999")
    page = here.get("/projects").text
    assert '<a href="/projects/7/references">Project 7</a>' in page
    assert '<a href="/projects/7%232/references">Project 7#2</a>' in page
    assert '<a href="https://labels.example/base/projects/7/">https://labels.example/base/</a>' in page


def test_references_are_counted_per_project(here: TestClient, wiring) -> None:
    wiring.projects.remember(7, Connection("", ""), LABEL_CONFIG, "1795343347")
    webhook = LabelStudioApi().annotate(1, 10, DOOR, marked(DOOR), WHEEL, marked(WHEEL))
    wiring.follower.apply(Webhook.model_validate(webhook))
    found = wiring.references.counts()[7]
    assert (found.labels, found.references, found.left_out) == (2, 2, 0)


@pytest.mark.parametrize("address", ["javascript:alert(1)", '"><script>alert(1)</script>', "ftp://x"])
def test_an_address_that_is_no_web_address_becomes_no_link_and_no_markup(
    here: TestClient, wiring, address: str
) -> None:
    wiring.projects.remember(8, Connection(address, "t"), "", "1795349999")
    page = here.get("/projects").text
    assert f'href="{address}' not in page
    assert "<script>alert" not in page


def test_without_projects_the_page_says_how_to_connect_one(here: TestClient, wiring) -> None:
    for known in wiring.projects.all():
        wiring.projects.forget(known.project_id)
    assert "Connect Model" in here.get("/projects").text


@pytest.mark.parametrize("name", ["99", "x", "7#9", "../7", "0"])
def test_an_address_names_a_project_or_is_refused(wiring, name: str) -> None:
    assert find_project(wiring.projects, "7").project_id == 7
    with pytest.raises(ConfigError):
        find_project(wiring.projects, name)
