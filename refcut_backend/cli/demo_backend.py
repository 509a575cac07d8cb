"""The backend of the demo: its process, how to reach it, and what it answered."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from refcut_backend.cli.demo_label_studio import LabelStudioProject, log_tail
from refcut_backend.clicks.service import ANSWERED, EMPTY_CONTEXT
from refcut_backend.errors import ConfigError
from refcut_backend.settings import Settings
from refcut_backend.system.child_processes import Lifeline, stop_within

STATUS_LIMIT_S = 5.0
POLL_S = 0.3


@dataclass(frozen=True)
class DemoBackend:
    """How to reach the backend of the demo.

    Attributes:
        url: Its URL on this machine.
        user: User name of its password; empty without a password.
        password: The password.
        webhook_secret: What it expects in webhooks; empty without a password.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    webhook_secret: str = field(default="", repr=False)

    @classmethod
    def of(cls, settings: Settings) -> DemoBackend:
        """The backend that runs with these settings. With a password and no secret for webhooks, it generates one."""
        if settings.basic_auth_user is None or settings.basic_auth_password is None:
            return cls(settings.local_address)
        secret = settings.webhook_secret
        return cls(
            settings.local_address,
            settings.basic_auth_user,
            settings.basic_auth_password.get_secret_value(),
            secrets.token_urlsafe(24) if secret is None else secret.get_secret_value(),
        )

    @property
    def environment(self) -> dict[str, str]:
        """What its process needs beside this one's environment."""
        return {"REFCUT_WEBHOOK_SECRET": self.webhook_secret} if self.webhook_secret else {}

    def client(self) -> httpx.Client:
        """Asks the backend."""
        auth = httpx.BasicAuth(self.user, self.password) if self.user else None
        return httpx.Client(base_url=self.url, auth=auth, timeout=STATUS_LIMIT_S, trust_env=False)

    def connect(self, project: LabelStudioProject) -> None:
        """Attaches the backend to a project."""
        project.connect_backend(
            self.url, user=self.user, password=self.password, webhook_secret=self.webhook_secret
        )


def start_backend(log_path: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the backend. It writes its log and its own greeting to a file, so that the demo's stays on the screen.

    Args:
        log_path: The file; its folder becomes the backend's state folder.
        environment: Variables beside those of this process.
    """
    log_path.parent.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "refcut_backend", "run"]
    with log_path.open("ab") as log:
        return Lifeline().start(
            command,
            os.environ | environment | {"REFCUT_STATE_DIR": str(log_path.parent)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def check_is_running(backend: subprocess.Popen[bytes], log_path: Path) -> None:
    """Raises ConfigError with the end of the log if the backend has ended."""
    if backend.poll() is not None:
        raise ConfigError(f"the backend did not start\n{log_tail(log_path)}")


def wait_until_up(
    path: str, demo_backend: DemoBackend, backend: subprocess.Popen[bytes], log_path: Path, limit_s: float
) -> None:
    """Wait until the backend answers a path with success.

    Args:
        path: The path.
        demo_backend: How to reach the backend.
        backend: Its process.
        log_path: Its log.
        limit_s: How long to wait.

    Raises:
        ConfigError: If it ends or does not answer in time. The message has the end of its log.
    """
    deadline = time.monotonic() + limit_s
    with demo_backend.client() as client:
        while time.monotonic() < deadline:
            check_is_running(backend, log_path)
            try:
                client.get(path).raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(POLL_S)
    raise ConfigError(f"the backend did not answer within {limit_s:.0f} s\n{log_tail(log_path)}")


def activity(backend: DemoBackend) -> str:
    """One line: the time, and how many clicks the backend has answered since its start."""
    now = time.strftime("%H:%M")
    try:
        with backend.client() as client:
            answer = client.get("/status").raise_for_status()
    except httpx.HTTPError:
        return f"{now}  the backend does not say what it does; its log may say why"
    outcomes: dict[str, int] = answer.json()["clicks"]
    others = [name for name in sorted(outcomes) if name not in (ANSWERED, EMPTY_CONTEXT)]
    more = "".join(f", {outcomes[name]} {name}" for name in others)
    return f"{now}  clicks answered with a mask: {outcomes.get(ANSWERED, 0)}{more}"


def stop_backend(backend: subprocess.Popen[bytes], limit_s: float) -> None:
    """Stop the backend; kill it after `limit_s`."""
    backend.terminate()
    stop_within(backend, limit_s)
