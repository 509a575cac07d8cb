"""A real Label Studio and a real `refcut run`, each with a state of its own, for a simulated team."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from refcut_backend.cli.demo_label_studio import LabelStudioServer, Owner
from tests.support.recorded import REPOSITORY
from tests.support.running_backend import free_port

START_LIMIT_S = 600.0
CLICK_TIMEOUT_S = 60
PATIENCE_S = 100.0
"""Label Studio waits this long for an answer."""
POLL_S = 2.0


@dataclass(frozen=True)
class TeamWorld:
    """label_studio, backend: addresses. token: the owner's in Label Studio. client: of the backend."""

    label_studio: str
    backend: str
    token: str
    state_dir: Path
    client: httpx.Client

    def wait_for_training(
        self, project_id: int, known: set[str], say: Callable[[str], None]
    ) -> dict[str, Any]:
        """The next run of the project that is none of `known`, once it has ended, as `/status` tells of it."""
        shown = ""
        while True:
            try:
                projects = self.client.get("/status").json()["training"]["projects"] or {}
            except httpx.HTTPError:
                projects = {}
            run = projects.get(str(project_id), {}).get("run")
            if run is not None and run["id"] not in known:
                if run["ended_at"] is not None:
                    return dict(run)
                now = f"{run['stage']} {run['step']}/{run['steps']}"
                if now != shown:
                    shown = now
                    say(now)
            time.sleep(POLL_S)


@contextmanager
def team_world(folder: Path, label_studio: Path, settings: dict[str, str]) -> Iterator[TeamWorld]:
    """folder: for state and logs of both. label_studio: its command. settings: REFCUT_* that differ from the default."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = Owner("team@example.com", secrets.token_urlsafe(9), secrets.token_hex(20))
    port, label_studio_port = free_port(), free_port()
    state_dir = folder / "refcut"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("REFCUT_")}
    environment |= {
        "REFCUT_PORT": str(port),
        "REFCUT_STATE_DIR": str(state_dir),
        "REFCUT_CLICK_TIMEOUT_S": str(CLICK_TIMEOUT_S),
    } | settings
    with ExitStack() as stack:
        log = stack.enter_context((folder / "refcut.log").open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "refcut_backend", "run"],
            env=environment,
            cwd=REPOSITORY,
            stdout=log,
            stderr=log,
        )
        stack.callback(_stop, process)
        backend = f"http://127.0.0.1:{port}"
        client = stack.enter_context(httpx.Client(base_url=backend, timeout=PATIENCE_S, trust_env=False))
        server = LabelStudioServer(label_studio, folder / "label-studio", label_studio_port, owner)
        stack.enter_context(server)
        _wait_until_ready(client, process, folder / "refcut.log")
        yield TeamWorld(server.url, backend, owner.token, state_dir, client)


def label_config(labels: list[str]) -> str:
    """As label_config/clicks_brush.xml, with other labels."""
    listed = "".join(f'<Label value="{label}"/>' for label in labels)
    return (
        f'<View><KeyPointLabels name="click" toName="image" smart="true" smartOnly="true">{listed}</KeyPointLabels>'
        '<Image name="image" value="$image"/>'
        f'<BrushLabels name="brush" toName="image" smart="false">{listed}</BrushLabels>'
        '<Choices name="refcut_role" toName="image" perRegion="true" choice="single-radio" whenTagName="brush">'
        '<Choice value="Reference"/><Choice value="Negative reference"/></Choices></View>'
    )


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the backend did not start:\n{log.read_text()}")
        try:
            client.get("/readyz").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.5)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(60)
