from __future__ import annotations

import base64
import os
import pwd
import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests
from fastapi.testclient import TestClient
from starlette.datastructures import Headers

from refcut_backend.api.app import create_app
from refcut_backend.api.auth import SECRET_HEADER, Access, other_accounts, warn_when_open
from refcut_backend.errors import ConfigError
from refcut_backend.settings import Settings, read_settings
from tests.support.fake_wiring import FakeQueue, click_body, wiring_on
from tests.support.recorded import backend_request, click_result

USER, PASSWORD = "label-studio", "pässwörd"
BEHIND_A_PASSWORD = [
    ("GET", "/health"),
    ("GET", "/versions"),
    ("GET", "/metrics"),
    ("GET", "/status"),
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
    ("GET", "/no-such-page"),
    ("GET", "/livez/"),
    ("GET", "/openapi.json"),
]


def basic(credentials: bytes) -> str:
    return "Basic " + base64.b64encode(credentials).decode()


@pytest.fixture
def make_client(tmp_path) -> Iterator[object]:
    with ExitStack() as stack:

        def make(access: Access) -> TestClient:
            wiring = stack.enter_context(wiring_on(tmp_path, FakeQueue()))
            return stack.enter_context(TestClient(create_app(wiring, 1_000_000, access)))

        yield make


@pytest.fixture
def client(make_client) -> TestClient:
    return make_client(Access.of(Settings(basic_auth_user=USER, basic_auth_password=PASSWORD)))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Bearer x",
        "Token 0123456789abcdef",
        "Basic not base64 at all!",
        "Basic a",
        "Basic \xff\xfe",
        basic(b""),
        basic(b":"),
        basic(f"{USER}:wrong".encode()),
        basic(f"{USER}:pässwört".encode()),
        basic(f"{USER}:{PASSWORD}x".encode()),
        basic(f"{USER}:pssword".encode()),
        basic(f"{USER}".encode()),
        basic(f"other:{PASSWORD}".encode()),
        basic(b"\xff\xfe:\x00"),
    ],
)
def test_without_the_right_credentials_every_page_is_401(client, header):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    for method, path in BEHIND_A_PASSWORD:
        answer = client.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert PASSWORD not in answer.text


@pytest.mark.parametrize("given", [f"{USER}:{PASSWORD}".encode(), f"{USER}:".encode(), b"x"])
def test_credentials_and_secrets_are_compared_in_constant_time_with_every_encoding(monkeypatch, given):
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return secrets.compare_digest(one, other)

    monkeypatch.setattr("refcut_backend.api.auth.hmac.compare_digest", compare)
    access = Access.of(Settings(basic_auth_user=USER, basic_auth_password=PASSWORD, webhook_secret="sesame"))
    assert access.allows("/status", Headers({"Authorization": basic(given)})) == (given in access.basic)
    assert sorted(compared) == sorted((given, each) for each in access.basic)
    assert len(compared) == 2
    compared.clear()
    assert access.allows("/webhook", Headers({SECRET_HEADER: "sesame"}))
    assert compared == [(b"sesame", b"sesame")]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_with_the_right_credentials_every_page_answers_whatever_the_client_encodes_them_in(client, encoding):
    headers = {"Authorization": basic(f"{USER}:{PASSWORD}".encode(encoding))}
    assert client.get("/health", headers=headers).status_code == 200
    assert client.get("/versions", headers=headers).status_code == 200
    assert client.get("/metrics", headers=headers).status_code == 200
    assert client.get("/status", headers=headers).status_code == 200
    setup = backend_request("api_list_ml", "/setup")
    assert client.post("/setup", json=setup, headers=headers).status_code == 200
    body = click_body(click_result("a", 1, 1, "Door"))
    assert client.post("/predict", json=body, headers=headers).status_code == 200


def test_the_header_that_label_studio_makes_is_accepted(client):
    prepared = requests.Request("GET", "http://backend/health", auth=(USER, PASSWORD)).prepare()
    header = prepared.headers["Authorization"]
    assert client.get("/health", headers={"Authorization": header}).status_code == 200


def test_a_password_outside_latin_1_does_not_shrink_to_what_latin_1_has_of_it(make_client):
    client = make_client(Access.of(Settings(basic_auth_user="u", basic_auth_password="パスワード")))
    assert client.get("/health", headers={"Authorization": basic(b"u:")}).status_code == 401
    right = {"Authorization": basic("u:パスワード".encode())}
    assert client.get("/health", headers=right).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_need_no_credentials(client, path):
    assert client.get(path).status_code in (200, 503)


def test_without_settings_nothing_asks_for_credentials(make_client):
    client = make_client(Access.of(Settings()))
    assert client.get("/health").status_code == 200
    assert client.post("/webhook", json=backend_request("api_train", "/webhook")).status_code == 200


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_a_webhook_passes_with_its_secret_and_not_with_a_wrong_one(make_client, password):
    user = USER if password else None
    settings = Settings(basic_auth_user=user, basic_auth_password=password, webhook_secret="sésame")
    client = make_client(Access.of(settings))
    body = backend_request("api_annotation_create", "/webhook")

    def status(secret: str | None) -> int:
        headers = {} if secret is None else {SECRET_HEADER: secret.encode()}
        return client.post("/webhook", json=body, headers=headers).status_code

    assert [status("sésame"), status(None), status(""), status("sesame")] == [200, 401, 401, 401]


def test_the_webhook_secret_opens_nothing_else(make_client):
    settings = Settings(basic_auth_user=USER, basic_auth_password=PASSWORD, webhook_secret="sesame")
    client = make_client(Access.of(settings))
    assert client.get("/status", headers={SECRET_HEADER: "sesame"}).status_code == 401


def test_start_training_comes_with_the_password_and_passes_without_the_webhook_secret(make_client):
    settings = Settings(basic_auth_user=USER, basic_auth_password=PASSWORD, webhook_secret="sesame")
    client = make_client(Access.of(settings))
    headers = {"Authorization": basic(f"{USER}:{PASSWORD}".encode())}
    body = backend_request("api_train", "/webhook")
    assert client.post("/webhook", json=body, headers=headers).status_code == 200


def test_a_refused_webhook_says_in_answer_and_log_what_to_set(client, caplog):
    answer = client.post("/webhook", json=backend_request("api_annotation_create", "/webhook"))
    assert answer.status_code == 401
    assert SECRET_HEADER in answer.json()["hint"]
    assert [SECRET_HEADER in record.problem for record in caplog.records if hasattr(record, "problem")] == [
        True
    ]


@pytest.mark.parametrize("only", ["USER", "PASSWORD"])
def test_half_a_password_refuses_to_start_with_a_clear_line(monkeypatch, only):
    monkeypatch.setenv(f"REFCUT_BASIC_AUTH_{only}", "canary")
    with pytest.raises(ConfigError, match="belong together") as error:
        read_settings()
    assert "canary" not in str(error.value)


def test_a_user_name_with_a_colon_refuses_to_start(monkeypatch):
    monkeypatch.setenv("REFCUT_BASIC_AUTH_USER", "a:b")
    monkeypatch.setenv("REFCUT_BASIC_AUTH_PASSWORD", "c")
    with pytest.raises(ConfigError, match=r"REFCUT_BASIC_AUTH_USER.*colon"):
        read_settings()


def test_empty_variables_are_the_same_as_none():
    settings = Settings(basic_auth_user="", basic_auth_password="", webhook_secret="")
    assert Access.of(settings) == Access()


def test_credentials_never_show():
    settings = Settings(basic_auth_user="u", basic_auth_password="canary", webhook_secret="canary")
    assert "canary" not in repr(settings) + repr(Access.of(settings))


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        (Settings(), ""),
        (Settings(host="0.0.0.0"), "anybody who reaches this port"),
        (
            Settings(host="0.0.0.0", basic_auth_user="u", basic_auth_password="p"),
            "references will not follow annotations",
        ),
        (
            Settings(host="0.0.0.0", basic_auth_user="u", basic_auth_password="p", webhook_secret="s"),
            "",
        ),
    ],
)
def test_the_start_says_what_is_open_and_what_will_not_work(settings, warning, caplog, monkeypatch):
    monkeypatch.setattr("refcut_backend.api.auth.pwd.getpwall", lambda: [account("own", os.getuid())])
    warn_when_open(settings)
    assert len(caplog.records) == (1 if warning else 0)
    assert warning in caplog.text


def account(name: str, uid: int, shell: str = "/bin/bash") -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", shell))


@pytest.mark.parametrize(("password", "warns"), [(None, True), ("p", False)])
def test_on_a_machine_with_other_users_a_server_without_a_password_says_so(
    monkeypatch, caplog, password, warns
):
    accounts = [
        account("root", 0),
        account("redis", 999),
        account("backup", 1001, "/usr/sbin/nologin"),
        account("nobody", 65534),
        account("colleague", 1002),
    ]
    monkeypatch.setattr("refcut_backend.api.auth.os.getuid", lambda: 1000)
    monkeypatch.setattr("refcut_backend.api.auth.pwd.getpwall", lambda: accounts)
    assert other_accounts() == ["colleague"]
    warn_when_open(
        Settings(basic_auth_user=password and "u", basic_auth_password=password, webhook_secret="s")
    )
    assert ("other users of this machine" in caplog.text) == warns
