from __future__ import annotations

import json

import httpx
import pytest

from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.client import connect, explain
from refcut_backend.label_studio.connection import Connection
from tests.support.fake_label_studio import LEGACY, PERSONAL, Answer, FakeLabelStudio, running

PROJECT = Answer(
    json.dumps({"id": 3, "title": "Cars"}).encode(), headers={"Content-Type": "application/json"}
)
PATH = "/api/projects/3/"


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
@pytest.mark.parametrize("base", ["", "/labeling"])
def test_the_sdk_s_client_works_with_either_token_and_below_a_base_path(token, base):
    with running(FakeLabelStudio(base=base, files={PATH: PROJECT})) as fake:
        assert connect(Connection(fake.url, token)).projects.get(3).title == "Cars"


def test_clients_of_one_process_share_an_access_token(label_studio):
    label_studio.files[PATH] = PROJECT
    for _ in range(3):
        connect(Connection(label_studio.url, PERSONAL)).projects.get(3)
    assert label_studio.refreshes == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_label_studio_is_asked_again(label_studio, status):
    label_studio.files[PATH] = PROJECT
    label_studio.before = [Answer(status=status, headers={"Retry-After": "0"})]
    assert connect(Connection(label_studio.url, LEGACY)).projects.get(3).id == 3
    assert len(label_studio.asked(PATH)) == 2


def test_a_wait_that_outlasts_the_limit_is_not_begun(label_studio):
    label_studio.before = [Answer(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(Exception) as error:  # noqa: PT011  the SDK's ApiError has no types
        connect(Connection(label_studio.url, LEGACY), limit_s=5).projects.get(3)
    assert len(label_studio.asked(PATH)) == 1
    assert "overloaded" in str(explain(error.value, label_studio.url))


def problem_of(label_studio: str, token: str) -> RefCutError:
    try:
        connect(Connection(label_studio, token), limit_s=5).projects.get(3)
    except Exception as error:
        return explain(error, label_studio)
    pytest.fail("the call went through")


def test_problems_say_what_to_do_and_never_show_a_token(label_studio):
    refused = problem_of(label_studio.url, "wrong-token")
    missing = problem_of(label_studio.url, LEGACY)
    silent = problem_of("http://127.0.0.1:9", LEGACY)
    assert "REFCUT_ACCESS_TOKEN" in refused.hint
    assert "404" in missing.message
    assert "127.0.0.1:9 cannot be reached (ConnectError)" in silent.message
    assert not any(word in str(p) for word in ("wrong-token", LEGACY) for p in (refused, missing, silent))


def test_a_redirect_into_the_private_network_is_refused_and_gets_no_token(label_studio):
    with running(FakeLabelStudio()) as inner:
        label_studio.files[PATH] = Answer(status=302, headers={"Location": inner.url + PATH})
        problem = problem_of(label_studio.url, LEGACY)
    assert problem.code == "address_refused"
    assert inner.seen == []


def test_an_unknown_error_is_named_but_not_quoted():
    problem = explain(httpx.InvalidURL("http://host/?signature=canary"), "http://user:canary@ls/x")
    assert "canary" not in str(problem)
