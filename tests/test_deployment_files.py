"""The files of docker/ and deploy/systemd/: what they start exists, and what they promise about access holds.

The images themselves are not built here; the step that installs their packages is run with another `pip`.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from refcut_backend.cli.main import app
from refcut_backend.queue.rq_jobs import FUNCTIONS
from refcut_backend.settings import Settings
from tests.support.recorded import REPOSITORY

COMPOSE_TEXT = (REPOSITORY / "docker/compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
OWN = {name: service for name, service in SERVICES.items() if service["image"].startswith("refcut")}
UNITS = sorted((REPOSITORY / "deploy/systemd").glob("*.service"))
SETTINGS = {f"REFCUT_{name.upper()}" for name in Settings.model_fields}
COMMANDS = set(typer.main.get_group(app).commands)


def test_every_setting_that_the_files_name_exists():
    files = [*(REPOSITORY / "docker").rglob("*"), *(REPOSITORY / "deploy/systemd").iterdir()]
    for path in filter(Path.is_file, files):
        assert set(re.findall(r"\bREFCUT_[A-Z_]+[A-Z]\b", path.read_text())) <= SETTINGS, path.name


@pytest.mark.parametrize(
    "arguments",
    [
        *(service["command"] for service in OWN.values()),
        *(re.findall(r"^ExecStart=\S+/refcut (.*)$", path.read_text(), re.M)[0].split() for path in UNITS),
    ],
    ids=" ".join,
)
def test_every_service_starts_a_command_and_queues_that_exist(arguments: list[str]):
    assert arguments[0] in COMMANDS
    if "--queues" in arguments:
        assert set(arguments[arguments.index("--queues") + 1].split(",")) <= set(FUNCTIONS)


@pytest.mark.parametrize("name", [*OWN, "redis"])
def test_the_containers_write_to_their_volumes_only_and_have_no_rights_of_root(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "ports" not in service


def test_no_container_of_the_backend_can_take_all_memory_of_the_machine():
    assert {name: SERVICES[name]["mem_limit"] for name in [*OWN, "redis"]} == {
        "web": "2g",
        "worker": "4g",
        "worker-gpu": "4g",
        "trainer": "8g",
        "trainer-gpu": "8g",
        "redis": "512m",
    }


def test_what_runs_on_a_gpu_has_the_image_with_cuda_and_reserves_one():
    for name in ("worker-gpu", "trainer-gpu"):
        service = SERVICES[name]
        assert service["image"] == "refcut:cuda"
        assert service["build"]["args"] == {"TORCH": "cuda"}
        assert service["environment"]["REFCUT_DEVICE"] == "cuda"
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]


def test_only_the_backend_reaches_redis_and_the_database():
    assert COMPOSE["networks"]["internal"]["internal"] is True
    for name in ("redis", "postgres"):
        assert SERVICES[name]["networks"] == ["internal"]
    for service in OWN.values():
        assert set(service["networks"]) == {"default", "internal"}
    assert "networks" not in SERVICES["label-studio"]
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"label-studio"}


def test_redis_has_the_password_that_the_backend_sends(tmp_path: Path):
    for service in OWN.values():
        assert service["environment"]["REFCUT_REDIS_URL"].startswith("redis://:${REDIS_PASSWORD:?")
    (*_, script) = SERVICES["redis"]["command"]
    *lines, start = script.replace("$$", "$").splitlines()
    assert start == "exec redis-server /tmp/redis.conf"
    subprocess.run(
        ["sh", "-c", "\n".join(lines).replace("/tmp/redis.conf", str(tmp_path / "redis.conf"))],
        env=os.environ | {"REDIS_PASSWORD": "0a1b"},
        check=True,
    )
    assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0
    settings = (tmp_path / "redis.conf").read_text().splitlines()
    assert settings == ['save ""', "appendonly no", "requirepass 0a1b"]


def test_the_workers_are_as_many_as_share_the_cores():
    worker = SERVICES["worker"]
    assert worker["deploy"]["replicas"] == worker["environment"]["REFCUT_WORKERS"] == "${REFCUT_WORKERS:-1}"


def test_the_settings_of_the_example_reach_every_container_of_the_backend():
    for service in OWN.values():
        assert service["env_file"] == [{"path": ".env", "required": False}]
    example = (REPOSITORY / "docker/env.example").read_text()
    needed = set(re.findall(r"\$\{(\w+)", COMPOSE_TEXT)) - {"REFCUT_LABEL_STUDIO_URL"}
    assert needed | {"REFCUT_WEBHOOK_SECRET"} <= set(re.findall(r"^#?(\w+)=", example, re.M))
    ignored = (REPOSITORY / ".gitignore").read_text().split()
    assert "docker/.env" in ignored
    assert "docker/.env" in (REPOSITORY / ".dockerignore").read_text().split()


def packages_of_the_image(tmp_path: Path, torch: str, pip: str) -> tuple[list[str], str, int]:
    """Run the Dockerfile's step that installs packages, with another `pip`.

    Args:
        tmp_path: Folder for the `pip` and what it writes.
        torch: The build argument TORCH.
        pip: Shell command that decides how `pip` ends.

    Returns:
        The lines of arguments that `pip` got, what was written to stderr, and the exit status.
    """
    text = (REPOSITORY / "docker/Dockerfile").read_text()
    (script,) = re.findall(r"^RUN (set -eu;.*?[^\\])$", text, re.DOTALL | re.MULTILINE)
    (copied,) = re.findall(r"^COPY (requirements\.txt.*) \./$", text, re.MULTILINE)
    for name in copied.split():
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "pip").write_text(f'#!/bin/sh\necho "$*" >>asked\n{pip}\n')
    (tmp_path / "pip").chmod(0o755)
    values = {"TORCH": torch, "CPU_WHEELS": "https://mirror.example/cpu", "PACKAGES": "s3fs"}
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env=os.environ | values | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    asked = (tmp_path / "asked").read_text().splitlines()
    names = {name for line in asked for name in re.findall(r"--(?:requirement|constraint) (\S+)", line)}
    assert names <= set(copied.split())
    return asked, done.stderr, done.returncode


ALL_PACKAGES = "install --no-cache-dir --requirement requirements.txt --constraint constraints.txt s3fs"


def test_an_image_for_processors_takes_torch_from_its_own_index_and_all_else_in_the_tested_versions(
    tmp_path: Path,
):
    asked, _, status = packages_of_the_image(tmp_path, "cpu", "exit 0")
    first, rest = asked
    assert re.search(
        r"--index-url https://mirror\.example/cpu torch==[\d.]+\+cpu torchvision==[\d.]+\+cpu$", first
    )
    assert (rest, status) == (ALL_PACKAGES, 0)


def test_an_image_with_cuda_takes_torch_from_the_package_index(tmp_path: Path):
    asked, _, status = packages_of_the_image(tmp_path, "cuda", "exit 0")
    assert (asked, status) == ([ALL_PACKAGES], 0)


def test_an_image_for_processors_does_not_silently_get_cuda(tmp_path: Path):
    asked, error, status = packages_of_the_image(tmp_path, "cpu", "exit 1")
    assert len(asked) == 1
    assert status == 1
    assert "https://mirror.example/cpu" in error
    assert "--build-arg CPU_WHEELS=" in error
    assert "--build-arg TORCH=cuda" in error


@pytest.fixture
def alive() -> Iterator[int]:
    """Port of a server that answers /livez with 200, and anything else with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_the_health_check_asks_the_port_of_the_settings(alive: int):
    text = (REPOSITORY / "docker/Dockerfile").read_text()
    (command,) = re.findall(r"HEALTHCHECK.*?CMD (\[.*?\])$", text, re.DOTALL | re.MULTILINE)
    _, *arguments = ast.literal_eval(command)

    def status(port: int) -> int:
        environment = os.environ | {"REFCUT_PORT": str(port)}
        return subprocess.run(
            [sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL
        ).returncode

    assert status(alive) == 0
    assert status(1) != 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_units():
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, UNITS), str(REPOSITORY / "deploy/systemd/refcut.target")],
        capture_output=True,
        text=True,
    )
    problems = [
        line for line in done.stderr.splitlines() if "/opt/refcut/bin/refcut is not executable" not in line
    ]
    assert problems == []
