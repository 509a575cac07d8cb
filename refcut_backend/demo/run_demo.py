"""`refcut demo`: backend and Label Studio together, with projects to click in. State stays in one folder."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import httpx

from refcut_backend.demo.demo_projects import make_demo_projects
from refcut_backend.demo.label_studio_server import LabelStudioServer, Owner
from refcut_backend.errors import ConfigError
from refcut_backend.queue.redis import stop_within
from refcut_backend.settings import Settings

USER = "demo@example.com"
START_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0
POLL_S = 0.3


class _StoppedError(Exception):
    """Ctrl-C or SIGTERM, wherever the demo is just then."""


def run_demo(settings: Settings, folder: Path, label_studio: Path, label_studio_port: int) -> int:
    """Blocks until Ctrl-C; returns the exit status: 0 after a signal, 1 when the backend stopped by itself.

    label_studio: the `label-studio` command of its own virtual environment. Raises ConfigError that says what to do.
    """
    if not label_studio.is_file():
        raise ConfigError(
            f"{label_studio} is missing", hint="`make demo` installs Label Studio into .venv-label-studio"
        )
    owner = _owner(folder)
    backend_url = settings.local_address
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _stop)
    try:
        with ExitStack() as stack:
            backend = _start_backend(folder)
            stack.callback(_stop_backend, backend)
            _wait_for(backend_url, backend)
            print("Starting Label Studio; the first time takes a minute or two.", flush=True)
            server = LabelStudioServer(label_studio, folder / "label-studio", label_studio_port, owner)
            stack.enter_context(server)
            projects = make_demo_projects(server.url, owner.token, backend_url)
            print(_greeting(server.url, owner, projects), flush=True)
            return backend.wait() or 1
    except _StoppedError:
        return 0


def _owner(folder: Path) -> Owner:
    """The demo's account: made up once, and kept in a file that only this user reads."""
    path = folder / "account.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        account = {"user": USER, "password": secrets.token_urlsafe(9), "token": secrets.token_hex(20)}
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(account, file)
    return Owner(**json.loads(path.read_text()))


def _start_backend(folder: Path) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches the demo alone, which then stops everything in order.
    return subprocess.Popen(
        [sys.executable, "-m", "refcut_backend", "run"],
        env=os.environ | {"REFCUT_STATE_DIR": str(folder / "refcut")},
        start_new_session=True,
    )


def _wait_for(backend_url: str, backend: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    with httpx.Client(base_url=backend_url, trust_env=False) as client:
        while time.monotonic() < deadline:
            if backend.poll() is not None:
                raise ConfigError("the backend did not start", hint="it has said why above")
            try:
                client.get("/health").raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(POLL_S)
    raise ConfigError(f"the backend did not answer within {START_LIMIT_S:.0f} s", hint="see its log above")


def _stop_backend(backend: subprocess.Popen[bytes]) -> None:
    backend.terminate()
    stop_within(backend, STOP_LIMIT_S)


def _stop(_signum: int, _frame: FrameType | None) -> None:
    raise _StoppedError


def _greeting(label_studio: str, owner: Owner, projects: dict[str, int]) -> str:
    return "\n".join(
        [
            "",
            f"Label Studio is at {label_studio}",
            f"  user      {owner.user}",
            f"  password  {owner.password}",
            *(f"  {title:<22} {label_studio}/projects/{id}/data" for title, id in projects.items()),
            "",
            "  The first photograph of each project holds the references. Open any other, switch Auto-Annotation on,",
            "  choose a label in the row 'Click' and click; Alt+click takes away; the tick accepts.",
            "  Label Studio runs with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false, so that it may call a",
            "  backend on this machine, and with legacy tokens, with which the backend reads the photographs.",
            "  Ctrl-C stops everything.",
        ]
    )
