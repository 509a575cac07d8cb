"""The demo as its user has it: backend, Label Studio and a signed-in browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.end_to_end.editor import ACTION_LIMIT_MS, VIEWPORT, Editor, launch_chromium
from tests.support.recorded import REPOSITORY
from tests.support.running_backend import free_port

START_LIMIT_S = 900.0
STOP_LIMIT_S = 90.0
CLICK_TIMEOUT_S = "60"


@dataclass(frozen=True)
class World:
    """A running `refcut demo`. label_studio, backend: addresses. token: the owner's. folder: the demo's state.

    account: user and password.
    """

    editor: Editor
    label_studio: str
    backend: str
    token: str
    folder: Path
    account: tuple[str, str]
    process: subprocess.Popen[bytes]


@contextmanager
def demo_world(folder: Path) -> Iterator[World]:
    """Starts the demo, signs in with the account that it prints, and stops it as Ctrl-C does."""
    executable, chromium = os.environ.get("REFCUT_LABEL_STUDIO"), shutil.which("chromium")
    assert executable, "REFCUT_LABEL_STUDIO names the label-studio command; `make test` sets it"
    if chromium is None:
        pytest.skip("Debian's package chromium is not installed, and `make test` could not install it")
    port, label_studio_port, log_path = free_port(), free_port(), folder / "demo.log"
    environment = os.environ | {"REFCUT_PORT": str(port), "REFCUT_CLICK_TIMEOUT_S": CLICK_TIMEOUT_S}
    environment.pop("REFCUT_REDIS_URL", None)
    command = ["--folder", str(folder), "--label-studio", executable]
    command += ["--label-studio-port", str(label_studio_port)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "refcut_backend", "demo", *command],
            env=environment,
            cwd=REPOSITORY,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for_greeting(process, log_path)
        account = json.loads((folder / "account.json").read_text())
        label_studio = f"http://127.0.0.1:{label_studio_port}"
        expect.set_options(timeout=ACTION_LIMIT_MS)  # five seconds are too short for a busy machine
        with sync_playwright() as playwright:
            browser = launch_chromium(playwright, Path(chromium))
            editor = Editor(browser.new_page(viewport=VIEWPORT), label_studio)
            user = account["user"], account["password"]
            editor.sign_in(*user)
            backend = f"http://127.0.0.1:{port}"
            yield World(editor, label_studio, backend, account["token"], folder, user, process)
            browser.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_LIMIT_S)


def _wait_for_greeting(process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while "password" not in (output := log_path.read_text(errors="replace")):
        assert process.poll() is None, output[-3000:]
        assert time.monotonic() < deadline, output[-3000:]
        time.sleep(0.5)
