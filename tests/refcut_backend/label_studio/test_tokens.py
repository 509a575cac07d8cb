from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from refcut_backend.errors import TokenError
from refcut_backend.label_studio.tokens import TokenAuth, shared_auth
from tests.support.fake_label_studio import LEGACY, PERSONAL, Answer, FakeLabelStudio, running

FILE = "/data/upload/1/a.png"


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with running(FakeLabelStudio(files={FILE: Answer(b"picture")})) as fake:
        yield fake


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def get(label_studio: FakeLabelStudio, auth: httpx.Auth) -> httpx.Response:
    with httpx.Client(auth=auth, trust_env=False) as client:
        return client.get(label_studio.url + FILE)


def test_a_legacy_token_is_sent_as_it_is(label_studio):
    assert get(label_studio, TokenAuth(label_studio.url, LEGACY)).content == b"picture"
    assert label_studio.seen[-1].authorization == f"Token {LEGACY}"
    assert label_studio.refreshes == 0


def test_a_personal_access_token_buys_an_access_token_and_is_never_sent_itself(label_studio):
    assert get(label_studio, TokenAuth(label_studio.url, PERSONAL)).content == b"picture"
    assert [seen.method for seen in label_studio.seen] == ["POST", "GET"]
    assert all(PERSONAL not in str(seen.authorization) for seen in label_studio.seen)


def test_an_access_token_is_kept_and_renewed_before_it_ends(label_studio):
    clock = Clock()
    auth = TokenAuth(label_studio.url, PERSONAL, clock)
    for clock.now in (0.0, 100.0, 239.0):
        assert get(label_studio, auth).status_code == 200
    assert label_studio.refreshes == 1
    clock.now = 241.0
    assert get(label_studio, auth).status_code == 200
    assert label_studio.refreshes == 2


@pytest.mark.parametrize("ahead_s", [-86_400, 86_400])
def test_clocks_that_disagree_do_not_matter(label_studio, ahead_s):
    label_studio.clock_ahead_s = ahead_s
    clock = Clock()
    auth = TokenAuth(label_studio.url, PERSONAL, clock)
    for clock.now in (0.0, 100.0, 200.0):
        assert get(label_studio, auth).status_code == 200
    assert label_studio.refreshes == 1


def test_a_401_renews_the_token_once_and_tries_once_more(label_studio):
    auth = TokenAuth(label_studio.url, PERSONAL)
    get(label_studio, auth)
    label_studio.good.clear()
    assert get(label_studio, auth).content == b"picture"
    assert label_studio.refreshes == 2


def test_a_token_that_stays_refused_is_tried_twice_and_no_more(label_studio):
    auth = TokenAuth(label_studio.url, PERSONAL)
    label_studio.before = [Answer(status=401), Answer(status=401), Answer(status=401)]
    assert get(label_studio, auth).status_code == 401
    assert (len(label_studio.asked(FILE)), label_studio.refreshes) == (2, 2)


def test_threads_share_one_access_token(label_studio):
    answers: list[int] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        answers.append(get(label_studio, shared_auth(label_studio.url, PERSONAL)).status_code)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    assert label_studio.refreshes == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(b'{"detail": "Token is invalid"}', 401), "make a new one"),
        (Answer(b"<html>", 200), "is it really Label Studio"),
        (Answer(b'{"access": "no jwt"}', 200), "is it really Label Studio"),
        (Answer(b"gone", 404), "REFCUT_LABEL_STUDIO_URL"),
    ],
)
def test_a_token_that_cannot_be_renewed_says_what_to_do_and_is_not_shown(label_studio, answer, says):
    label_studio.refresh = answer
    with pytest.raises(TokenError, match=says) as error:
        get(label_studio, TokenAuth(label_studio.url, PERSONAL))
    assert PERSONAL not in str(error.value)


def test_after_a_failed_renewal_the_next_request_tries_again(label_studio):
    auth = TokenAuth(label_studio.url, PERSONAL)
    label_studio.refresh = Answer(b"", 401)
    with pytest.raises(TokenError):
        get(label_studio, auth)
    label_studio.refresh = None
    assert get(label_studio, auth).content == b"picture"


@pytest.mark.parametrize("token", ["", "  ", "tok\nen", "tökén"])
def test_a_token_that_no_header_can_carry_is_refused_with_advice(token):
    with pytest.raises(TokenError, match="REFCUT_ACCESS_TOKEN"):
        TokenAuth("http://ls", token)


def test_the_base_path_is_kept_when_a_token_is_renewed():
    with running(FakeLabelStudio(base="/labeling", files={FILE: Answer(b"picture")})) as fake:
        assert get(fake, TokenAuth(fake.url + "/", PERSONAL)).content == b"picture"
