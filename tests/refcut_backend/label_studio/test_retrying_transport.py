from __future__ import annotations

import httpx
import pytest

from refcut_backend.label_studio.safe_http import TRIES, RetryingTransport


class Server(httpx.BaseTransport):
    """Answers with what it is given, one after another; an exception is raised."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def ask(server: Server, time_left_s: float | None = None) -> httpx.Response:
    with httpx.Client(transport=RetryingTransport(server, lambda: time_left_s)) as client:
        return client.get("http://ls/")


def busy(status: int, retry_after: str | None = "0") -> httpx.Response:
    return httpx.Response(status, headers={} if retry_after is None else {"Retry-After": retry_after})


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(status):
    server = Server(busy(status), busy(status, None), httpx.Response(200))
    assert ask(server).status_code == 200


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404])
def test_other_answers_are_final(status):
    server = Server(httpx.Response(status))
    assert ask(server).status_code == status


def test_a_server_that_stays_busy_is_given_up_with_its_last_answer():
    server = Server(*[busy(503)] * 5)
    assert ask(server).status_code == 503
    assert server.requests == TRIES


def test_a_server_that_restarts_is_asked_again_and_its_error_raised_when_it_stays_away():
    server = Server(httpx.ConnectError("refused"), httpx.Response(200))
    assert ask(server).status_code == 200
    with pytest.raises(httpx.ConnectError):
        ask(Server(*[httpx.ConnectError("refused")] * 5))


def test_a_wait_longer_than_the_time_left_is_not_begun(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _seconds: pytest.fail("it waited"))
    server = Server(busy(429, "30"), httpx.Response(200))
    assert ask(server, time_left_s=6).status_code == 429


def test_retry_after_is_waited_for(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    ask(Server(busy(429, "2"), httpx.Response(200)), time_left_s=6)
    assert waits == [2.0]


def test_without_retry_after_waits_grow_and_differ(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    for _ in range(8):
        ask(Server(busy(503, None), busy(503, "soon"), httpx.Response(200)))
    assert all(
        0.2 <= first <= 0.4 and 0.4 <= second <= 0.6
        for first, second in zip(waits[::2], waits[1::2], strict=True)
    )
    assert len(set(waits[::2])) > 1
