"""Which host names requests may use."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from refcut_backend.api.app import create_app
from refcut_backend.api.hosts import AllowedNames
from refcut_backend.settings import Settings
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.recorded import backend_request

OWN = [
    "127.0.0.1:9090",
    "[::1]:9090",
    "localhost",
    "LOCALHOST:9090",
    "refcut.localhost",
    "192.168.1.7:9090",
    "web:9090",
    "refcut",
    "host.docker.internal:9090",
    "gpu.local",
    "refcut.team.svc.cluster.local:9090",
    "",
]
"""As Label Studio on this machine, in a container, in a cluster or in the local network calls the backend."""
FOREIGN = [
    "evil.example.com:9090",
    "evil.com",
    "localhost.evil.com",
    "127.0.0.1.evil.com",
    "local.evil.com",
    "evil.com.",
    "1.2.3.4.nip.io:9090",
    "[evil.com]:9090",
    "evil.com:9090@localhost",
    "127.0.0.1, evil.com",
]


@pytest.mark.parametrize("host", OWN)
def test_local_names_and_addresses_are_answered(client, host):
    assert client.get("/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/status", "/setup", "/predict", "/livez"])
@pytest.mark.parametrize("host", FOREIGN)
def test_a_name_that_somebody_else_may_own_is_refused_before_the_request_is_read(client, host, path, wiring):
    before = wiring.projects.all()
    setup = backend_request("api_list_ml", "/setup") | {"project": "99.1"}
    send = client.get if path in ("/status", "/livez") else lambda *a, **m: client.post(*a, json=setup, **m)
    answer = send(path, headers={"Host": host})
    assert answer.status_code == 421
    assert "REFCUT_ALLOWED_HOSTS" in answer.json()["hint"]
    assert wiring.projects.all() == before


def answers(wiring, name: str, **settings: object) -> int:
    names = AllowedNames.of(Settings(**settings))  # type: ignore[arg-type]
    with TestClient(create_app(wiring, LIMIT_BYTES, hosts=names)) as client:
        return client.get("/livez", headers={"Host": name}).status_code


def test_a_public_name_is_answered_if_a_setting_names_it(wiring):
    settings = {"allowed_hosts": "refcut.example.com, other.example.com"}
    assert answers(wiring, "RefCut.example.com.:9090", **settings) == 200
    assert answers(wiring, "evil.com", **settings) == 421
    assert answers(wiring, "127.0.0.1", **settings) == 200


def test_the_name_that_the_server_listens_on_is_answered(wiring):
    assert answers(wiring, "gpu7.example.com:9090", host="gpu7.example.com") == 200


def test_with_a_password_every_name_is_answered_unless_some_are_listed(wiring):
    password = {"basic_auth_user": "u", "basic_auth_password": "p"}
    assert answers(wiring, "refcut.example.com", **password) == 200
    assert answers(wiring, "evil.com", allowed_hosts="refcut.example.com", **password) == 421
