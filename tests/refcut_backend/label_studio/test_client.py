from __future__ import annotations

import gzip
import json
import threading
import time

import httpx
import pytest

from refcut_backend.errors import RefCutError
from refcut_backend.label_studio import client
from refcut_backend.label_studio.client import connect, explain, open_http
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.safe_http import BudgetPerRequest
from refcut_backend.label_studio.tasks import SourceError, open_source
from tests.support.fake_label_studio import LEGACY, PERSONAL, Answer, FakeLabelStudio, running
from tests.support.silent_server import silent_server

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


GENEROUS_S = 30
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n["


def test_an_endless_answer_is_read_only_up_to_the_limit(monkeypatch):
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 2**20)
    with silent_server(HEAD, b" " * 2**16, every_s=0.001) as address:
        source = open_source(7, Connection(f"http://{address}", LEGACY))
        with pytest.raises(SourceError, match="is larger than"):
            source.annotations(1)
        source.close()


@pytest.mark.parametrize("limits", [{"limit_s": 0.25}, {"limit_s": 20, "total_s": 1}])
def test_an_answer_that_comes_a_byte_at_a_time_ends_at_the_limit_of_the_whole_request(limits):
    with silent_server(HEAD, b" ") as address:
        connection = Connection(f"http://{address}", LEGACY)
        started = time.monotonic()
        with open_http(connection, **limits) as http, pytest.raises(httpx.TimeoutException):
            connect(connection, http=http).projects.get(3)
        assert time.monotonic() - started < GENEROUS_S


def test_an_answer_that_would_unpack_to_more_than_was_counted_is_refused(label_studio):
    label_studio.files[PATH] = Answer(
        gzip.compress(PROJECT.body), headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}
    )
    assert "CompressedError" in str(problem_of(label_studio.url, LEGACY))


def test_each_request_of_each_thread_has_a_budget_of_its_own():
    budget = BudgetPerRequest(limit_s=60, max_bytes=10)
    for _ in range(3):
        budget.begin()
        budget.spend(8)
    other = threading.Thread(target=budget.spend, args=(8,))
    other.start()
    other.join()
    budget.spend(2)
    with pytest.raises(RefCutError):
        budget.spend(1)
