"""The login form, its sessions, and what other sites cannot do."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from refcut_backend.api import sessions
from refcut_backend.api.app import create_app
from refcut_backend.api.auth import SECRET_HEADER, Access
from refcut_backend.api.bodies import OPEN_MAX_BYTES
from refcut_backend.api.pages.login import own_path
from refcut_backend.api.sessions import ATTEMPTS, COOKIE, LoginAttempts, Sessions
from refcut_backend.settings import Settings
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.fake_wiring import click_body
from tests.support.recorded import backend_request, click_result
from tests.support.seeded_trainings import connect

USER, PASSWORD = "label-studio", "pässwörd-canary"
BROWSER = {"Accept": "text/html"}
PAGES = ("/", "/status", "/status/clicks", "/projects", "/projects/7/training")
BASIC = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}


@pytest.fixture
def access() -> Access:
    return Access.of(Settings(basic_auth_user=USER, basic_auth_password=PASSWORD))


@pytest.fixture
def client(wiring, access) -> Iterator[TestClient]:
    connect(wiring.projects)
    app = create_app(wiring, LIMIT_BYTES, access)
    with TestClient(app, base_url="http://127.0.0.1:9090", follow_redirects=False) as client:
        yield client


def log_in(client: TestClient, password: str = PASSWORD, **headers: str) -> int:
    return client.post("/login", json={"user": USER, "password": password}, headers=headers).status_code


def test_a_browser_without_a_session_comes_to_the_form_and_from_there_to_where_it_wanted(
    client: TestClient,
) -> None:
    for path in PAGES:
        answer = client.get(path, headers=BROWSER)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login"), path
    form = client.get("/status/clicks?project=7", headers=BROWSER).headers["location"]
    assert 'data-next="/status/clicks?project=7"' in client.get(form).text
    assert log_in(client) == 200
    for path in PAGES:
        assert client.get(path, headers=BROWSER).status_code == 200, path
    assert client.get(form).headers["location"] == "/status/clicks?project=7"


def test_the_cookie_of_a_session_can_neither_be_read_by_scripts_nor_sent_by_other_sites(
    client: TestClient,
) -> None:
    answer = client.post("/login", json={"user": USER, "password": PASSWORD})
    (cookie,) = [one for one in answer.headers.get_list("set-cookie") if one.startswith(COOKIE)]
    for attribute in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age="):
        assert attribute in cookie
    assert "Secure" not in cookie
    assert PASSWORD not in cookie
    answer = client.post(
        "/login", json={"user": USER, "password": PASSWORD}, headers={"X-Forwarded-Proto": "https"}
    )
    assert all("Secure" in one for one in answer.headers.get_list("set-cookie"))


def test_a_session_opens_pages_and_none_of_the_routes_of_label_studio(client: TestClient) -> None:
    log_in(client)
    assert client.post("/projects/7/training/start", json={}).status_code == 200
    click = click_body(click_result("a", 1, 1, "Door"))
    for path, body in (
        ("/predict", click),
        ("/setup", backend_request("api_list_ml", "/setup")),
        ("/webhook", {}),
    ):
        assert client.post(path, json=body).status_code == 401, path
    assert client.get("/metrics").status_code == 401


def test_programs_and_label_studio_send_the_password_as_before(client: TestClient) -> None:
    assert client.get("/status", headers=BASIC).json()["model_version"]
    assert client.get("/status", headers=BASIC | BROWSER).headers["content-type"].startswith("text/html")
    click = click_body(click_result("a", 1, 1, "Door"))
    assert client.post("/predict", json=click, headers=BASIC).status_code == 200
    refused = client.get("/status")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic")


def test_a_script_of_a_page_whose_session_has_ended_gets_no_password_window_of_the_browser(
    client: TestClient,
) -> None:
    for headers in ({"Sec-Fetch-Mode": "cors"}, {"Cookie": f"{COOKIE}=ended"}):
        refused = client.get("/status/speed", headers=headers)
        assert refused.status_code == 401
        assert "WWW-Authenticate" not in refused.headers


@pytest.mark.parametrize("path", ["/login", "/livez", "/static/login.js"])
def test_a_stranger_can_send_no_large_body(client: TestClient, path: str) -> None:
    def in_parts() -> Iterator[bytes]:
        for _ in range(2):
            yield b" " * OPEN_MAX_BYTES

    json = {"Content-Type": "application/json"}
    for content in (b" " * (OPEN_MAX_BYTES + 1), in_parts()):
        assert client.post(path, content=content, headers=json).status_code == 413
    assert log_in(client) == 200


@pytest.mark.parametrize("cookie", ["", "x", "x.y.z", "a.aaaa.bbbb" * 500, "é"])
def test_a_made_up_cookie_is_no_session(access: Access, cookie: str) -> None:
    assert not Sessions(access.basic).is_valid(cookie)


def test_a_session_ends_after_its_time_and_with_the_password(access: Access, monkeypatch) -> None:
    cookie = Sessions(access.basic).new()
    assert Sessions(access.basic).is_valid(cookie), "another web process knows it too"
    content, signature = cookie.rsplit(".", 1)
    # Not its last letter: some of its bits are not part of the signature.
    forged = ("A" if signature[0] != "A" else "B") + signature[1:]
    assert not Sessions(access.basic).is_valid(f"{content}.{forged}")
    changed = Access.of(Settings(basic_auth_user=USER, basic_auth_password="another"))
    assert not Sessions(changed.basic).is_valid(cookie)
    assert not Sessions(()).is_valid(cookie)
    later = time.time() + sessions.LASTS_S + 60
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: later)
    assert not Sessions(access.basic).is_valid(cookie)


def test_logging_out_ends_it_in_this_browser(client: TestClient) -> None:
    log_in(client)
    client.post("/logout", json={})
    assert client.get("/status", headers=BROWSER).status_code == 303


def test_a_wrong_password_is_refused_and_after_many_even_the_right_one_for_a_while(
    client: TestClient,
) -> None:
    assert [log_in(client, "wrong") for _ in range(ATTEMPTS)] == [403] * ATTEMPTS
    refused = client.post("/login", json={"user": USER, "password": PASSWORD})
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert client.get("/health", headers=BASIC).status_code == 429, "guesses by programs count too"


def test_guesses_with_basic_authentication_are_limited_in_the_same_way(client: TestClient) -> None:
    wrong = {"Authorization": "Basic " + base64.b64encode(b"label-studio:guess").decode()}
    statuses = [client.get("/metrics", headers=wrong).status_code for _ in range(ATTEMPTS + 1)]
    assert statuses == [401] * ATTEMPTS + [429]
    assert log_in(client) == 429
    assert client.get("/metrics").status_code == 401, "a request without a password is no guess"


def test_webhooks_with_a_wrong_secret_are_limited_and_do_not_keep_clicks_out(client: TestClient) -> None:
    wrong = {SECRET_HEADER: "guess"}
    statuses = [client.post("/webhook", json={}, headers=wrong).status_code for _ in range(ATTEMPTS + 1)]
    assert statuses == [401] * ATTEMPTS + [429]
    click = click_body(click_result("a", 1, 1, "Door"))
    assert client.post("/predict", json=click, headers=BASIC).status_code == 200


def test_a_session_outlives_an_attack_from_the_same_address(client: TestClient) -> None:
    log_in(client)
    for _ in range(ATTEMPTS + 1):
        log_in(client, "wrong")
    assert client.get("/status", headers=BROWSER).status_code == 200


def test_the_limit_is_per_caller_and_ends_after_a_minute() -> None:
    now = 0.0
    attempts = LoginAttempts(lambda: now)
    for _ in range(ATTEMPTS):
        attempts.note_failure("10.0.0.1")
        attempts.note_failure("2001:db8::1")
    assert not attempts.may_try("10.0.0.1")
    assert not attempts.may_try("2001:db8::2"), "the same network"
    assert attempts.may_try("10.0.0.2")
    assert attempts.may_try("2001:db9::1")
    now = 61.0
    assert attempts.may_try("10.0.0.1")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:8080"},
        {"Origin": "null"},
    ],
)
def test_no_page_of_another_origin_can_act_in_the_name_of_who_is_logged_in(
    client: TestClient, headers: dict[str, str]
) -> None:
    log_in(client)
    answer = client.post("/projects/7/training/start", json={}, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "other_origin")
    assert log_in(client, **headers) == 403
    own = {"Origin": "http://127.0.0.1:9090"}
    assert client.post("/projects/7/training/start", json={}, headers=own).status_code == 200
    own = {"Sec-Fetch-Site": "same-origin"}
    assert client.post("/projects/7/training/start", json={}, headers=own).status_code == 200


def test_neither_password_nor_cookie_nor_a_malformed_login_reaches_the_log(
    client: TestClient, caplog
) -> None:
    caplog.set_level(logging.DEBUG)
    log_in(client)
    log_in(client, "wrong-canary")
    client.post("/login", json={"user": "u", "password": ["list-canary"]})
    client.get("/status?next=canary", headers=BROWSER)
    logged = " ".join(str(vars(record)) for record in caplog.records if record.name.startswith("refcut"))
    assert "/login" in logged
    assert "canary" not in logged
    assert client.cookies[COOKIE] not in logged


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "", "/\n/x"]
)
def test_the_form_leads_to_no_other_server(client: TestClient, path: str) -> None:
    assert own_path(path) == "/"
    log_in(client)
    assert client.get("/login", params={"next": path}).headers["location"] == "/"


def test_without_a_password_there_is_no_form_and_nothing_to_log_in_to(wiring) -> None:
    with TestClient(
        create_app(wiring, LIMIT_BYTES), client=("127.0.0.1", 1), follow_redirects=False
    ) as open_client:
        assert open_client.get("/login").headers["location"] == "/"
        assert open_client.post("/login", json={"user": "", "password": ""}).status_code == 403
