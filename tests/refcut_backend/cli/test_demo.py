"""`refcut demo` as a process: whatever ends it, nothing is left. Label Studio is a program that never answers."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from refcut_backend.cli.demo import greeting, run_demo
from refcut_backend.cli.demo_backend import DemoBackend, activity
from refcut_backend.cli.demo_label_studio import LabelStudioProject, Owner
from refcut_backend.errors import ConfigError
from refcut_backend.settings import Settings
from tests.support.http_server import serving
from tests.support.recorded import REPOSITORY
from tests.support.running_backend import free_port
from tests.support.trained_folders import trained_folder
from tests.support.worker_farm import GENEROUS_S, wait_for


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_demo_nothing_is_left_of_it(tmp_path, signum):
    command, environment = demo_with_a_silent_label_studio(tmp_path)
    environment["REFCUT_MODEL_DIR"] = str(trained_folder(tmp_path / "tiny"))
    with (tmp_path / "log").open("w") as log:
        demo = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        backend_log = tmp_path / "demo" / "refcut" / "backend.log"
        wait_for(
            lambda: backend_log.exists() and "RefCut listens on" in backend_log.read_text(), "it runs", 240
        )
        wait_for(lambda: len(children_of(demo.pid)) == 6, "run, Redis, two workers, web server, Label Studio")
        assert (tmp_path / "demo").stat().st_mode & 0o077 == 0
        assert "{" not in (tmp_path / "log").read_text(), "no line of a log is on the screen"
        children = children_of(demo.pid)
        demo.send_signal(signum)
        demo.wait(2 * GENEROUS_S)
        wait_for(lambda: not any(is_alive(child) for child in children), "nothing is left")
    finally:
        demo.kill()
        demo.wait()


@pytest.mark.slow
def test_a_backend_that_cannot_start_ends_the_demo_while_label_studio_starts(tmp_path):
    command, environment = demo_with_a_silent_label_studio(tmp_path)
    environment["REFCUT_MODEL_DIR"] = str(tmp_path / "missing")
    done = subprocess.run(
        command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=2 * GENEROUS_S
    )
    assert done.returncode != 0
    assert "the backend did not start" in done.stderr
    assert str(tmp_path / "missing") in done.stderr


def demo_with_a_silent_label_studio(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a demo whose Label Studio never answers."""
    label_studio = tmp_path / "label-studio"
    label_studio.write_text("#!/bin/sh\nexec sleep 600\n")
    label_studio.chmod(0o700)
    environment = os.environ | {"REFCUT_PORT": str(free_port()), "REFCUT_RUNTIME": "torch"}
    environment.pop("REFCUT_REDIS_URL", None)
    command = [sys.executable, "-m", "refcut_backend", "demo", "--folder", str(tmp_path / "demo")]
    command += ["--label-studio", str(label_studio), "--label-studio-port", str(free_port())]
    return command, environment


def test_the_greeting_names_address_account_state_and_log_and_the_three_steps_to_a_mask():
    lines = greeting(
        "http://127.0.0.1:8080",
        Owner("me@example.com", "secret", "0123abcd"),
        {"Cars": 3},
        DemoBackend("http://127.0.0.1:9090", "team", "sesame", "knock"),
        Path("/demo"),
        Path("/demo/refcut/backend.log"),
    ).splitlines()
    for named in (
        "http://127.0.0.1:8080",
        "me@example.com",
        "secret",
        "http://127.0.0.1:9090/",
        "/demo",
        "/demo/refcut/backend.log",
    ):
        assert [line for line in lines if line.endswith(f" {named}")], named
    assert [line for line in lines if line.endswith("http://127.0.0.1:8080/projects/3/data")]
    steps = [line.strip() for line in lines if line.strip()[:2] in ("1.", "2.", "3.")]
    for word, step in zip(("Auto-Annotation", "label", " M "), steps, strict=True):
        assert word in step
    assert not [secret for secret in ("0123abcd", "sesame", "knock") if secret in "".join(lines)]


def test_every_minute_a_line_says_what_was_answered_or_that_the_backend_does_not_answer():
    password = "Basic " + base64.b64encode(b"team:sesame").decode()

    async def status(request: Request) -> JSONResponse:
        if request.headers.get("Authorization") != password:
            return JSONResponse({}, 401)
        return JSONResponse({"clicks": {"image": 1, "answered": 3, "no_clicks": 9}})

    with serving(Starlette(routes=[Route("/status", status)])) as client:
        address = str(client.base_url).rstrip("/")
        backend = DemoBackend(address, "team", "sesame")
        assert activity(backend).endswith("clicks answered with a mask: 3, 1 image")
        assert "does not say" in activity(DemoBackend(address))
    assert "does not say" in activity(backend)


def test_a_demo_with_a_password_makes_up_the_secret_of_webhooks_if_none_is_set():
    password = {"basic_auth_user": "team", "basic_auth_password": "sesame"}
    with_new_secret = DemoBackend.of(Settings.model_validate(password))
    assert (with_new_secret.user, with_new_secret.password) == ("team", "sesame")
    assert with_new_secret.environment == {"REFCUT_WEBHOOK_SECRET": with_new_secret.webhook_secret}
    assert len(with_new_secret.webhook_secret) >= 24
    given = DemoBackend.of(Settings.model_validate(password | {"webhook_secret": "knock"}))
    assert given.webhook_secret == "knock"
    assert "sesame" not in repr(given)
    assert DemoBackend.of(Settings()).environment == {}


class MlOfLabelStudio:
    """What Label Studio's API knows of ML backends and webhooks: it makes a webhook with each backend."""

    def __init__(self) -> None:
        self.backends: dict[int, dict[str, Any]] = {}
        self.hooks: list[dict[str, Any]] = [
            {"id": 1, "url": "http://other.test/webhook", "headers": {"X-Other": "1"}}
        ]

    async def backends_route(self, request: Request) -> JSONResponse:
        if request.method == "GET":
            return JSONResponse(list(self.backends.values()))
        given = await request.json()
        number = int(request.path_params.get("number", 5))
        if request.method == "POST":
            self.hooks.append({"id": 2, "url": f"{given['url']}/webhook", "headers": None})
        self.backends[number] = {"id": number} | given
        return JSONResponse(self.backends[number])

    async def hooks_route(self, request: Request) -> JSONResponse:
        if request.method == "GET":
            return JSONResponse(self.hooks)
        (hook,) = [one for one in self.hooks if one["id"] == request.path_params["number"]]
        hook |= await request.json()
        return JSONResponse(hook)

    def app(self) -> Starlette:
        routes = [
            Route("/api/ml/", self.backends_route, methods=["GET", "POST"]),
            Route("/api/ml/{number:int}", self.backends_route, methods=["PATCH"]),
            Route("/api/webhooks/", self.hooks_route),
            Route("/api/webhooks/{number:int}/", self.hooks_route, methods=["PATCH"]),
        ]
        return Starlette(routes=routes)


def test_label_studio_is_told_the_password_and_the_secret_also_of_a_backend_that_is_attached_already():
    api = MlOfLabelStudio()
    with serving(api.app()) as client, closing(LabelStudioProject(str(client.base_url), 3, "t")) as project:
        DemoBackend("http://127.0.0.1:9090").connect(project)
        assert api.backends[5]["auth_method"] == "NONE"
        DemoBackend("http://127.0.0.1:9090", "team", "sesame", "knock").connect(project)
    (backend,) = api.backends.values()
    assert backend["auth_method"] == "BASIC_AUTH"
    assert (backend["basic_auth_user"], backend["basic_auth_pass"]) == ("team", "sesame")
    assert [hook["headers"] for hook in api.hooks] == [{"X-Other": "1"}, {"X-RefCut-Webhook-Secret": "knock"}]


def test_without_label_studio_the_demo_says_how_to_install_it_where_it_is_looked_for(tmp_path):
    missing = tmp_path / "own environment" / "bin" / "label-studio"
    with pytest.raises(ConfigError, match="pip install label-studio==") as raised:
        run_demo(Settings(state_dir=tmp_path), tmp_path / "demo", missing, free_port())
    assert f"'{tmp_path / 'own environment'}'" in str(raised.value)


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
