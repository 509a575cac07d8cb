"""From `refcut demo` on a new folder to the first mask in a browser: `python -m benchmarks.demo_start [--runs 3]`.

Everything is installed, Label Studio's tables are made (`refcut demo --prepare`), and the browser is fresh. The browser
does what the greeting says: it signs in, opens a photograph, switches Auto-Annotation on, chooses a label, presses M and
clicks. It does so without thinking, so what a person takes to read comes on top.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

import httpx
import psutil
from playwright.sync_api import sync_playwright

from benchmarks.report import machine, print_table, write_json
from refcut_backend.cli.demo import demo_mask, prepare_demo
from tests.end_to_end.click_on import fractions_of
from tests.end_to_end.editor import VIEWPORT, Editor, launch_chromium
from tests.support.recorded import REPOSITORY
from tests.support.running_backend import free_port

PROJECT, TASK, PHOTOGRAPH, LABEL, PART = 1, 2, "car_parts_te20", "Wheel", "wheel"
"""The second task of the demo's cars."""
LIMIT_S = 900
POLL_S = 0.1
STAGES = (
    "backend answers",
    "Label Studio answers",
    "worker ready",
    "greeting",
    "photograph open",
    "first mask",
)


@dataclass
class Run:
    """Seconds since the start at which each stage was reached, and the processor time of all processes until then."""

    wall_s: dict[str, float] = field(default_factory=dict)
    processor_s: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def reached(self, stage: str) -> None:
        """Note that a stage is reached."""
        self.wall_s[stage] = time.monotonic() - self.started
        self.processor_s[stage] = processor_s()


def processor_s() -> float:
    """Processor time of all living processes that this one has started, demo and browser."""
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def note_when(run: Run, stage: str, address: str, is_over: Callable[[], bool]) -> None:
    """Note in a thread when an address answers for the first time."""

    def wait() -> None:
        with httpx.Client(trust_env=False) as client:
            while not is_over():
                try:
                    if client.get(address).is_success:
                        run.reached(stage)
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(POLL_S)

    threading.Thread(target=wait, daemon=True).start()


def measure(label_studio: Path, folder: Path) -> Run:
    """Start a demo on an empty folder and click."""
    port, label_studio_port = free_port(), free_port()
    command = [sys.executable, "-u", "-m", "refcut_backend", "demo", "--folder", str(folder)]
    command += ["--label-studio", str(label_studio), "--label-studio-port", str(label_studio_port)]
    environment = os.environ | {"REFCUT_PORT": str(port)}
    environment.pop("REFCUT_REDIS_URL", None)
    run = Run()
    demo = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        here, there = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{label_studio_port}"
        for stage, address in zip(
            STAGES, (f"{here}/health", f"{there}/health", f"{here}/readyz"), strict=False
        ):
            note_when(run, stage, address, lambda: demo.poll() is not None)
        user, password = read_greeting(demo)
        run.reached("greeting")
        click(run, there, user, password)
        return run
    finally:
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=LIMIT_S)


def read_greeting(demo: subprocess.Popen[str]) -> tuple[str, str]:
    """User and password, once the last line of the greeting is on the screen."""
    assert demo.stdout is not None
    found: dict[str, str] = {}
    for line in demo.stdout:
        words = line.split()
        if words[:1] in (["user"], ["password"]):
            found[words[0]] = words[1]
        if line.startswith("Ctrl-C"):
            return found["user"], found["password"]
    raise SystemExit("the demo ended before its greeting")


def click(run: Run, label_studio: str, user: str, password: str) -> None:
    """The three steps of the greeting."""
    chromium = which("chromium")
    if chromium is None:
        raise SystemExit("Debian's package chromium is not installed")
    with sync_playwright() as playwright, launch_chromium(playwright, Path(chromium)) as browser:
        editor = Editor(browser.new_page(viewport=VIEWPORT), label_studio)
        editor.sign_in(user, password)
        editor.open_task(PROJECT, TASK)
        run.reached("photograph open")
        page = editor.page
        page.get_by_test_id("bottombar-auto-annotation-toggle").check(force=True)
        page.locator(".lsf-labels").first.get_by_text(LABEL, exact=True).click()
        page.keyboard.press("m")
        with page.expect_response("**/interactive-annotating*") as answer:
            page.mouse.click(*editor.page_point(*fractions_of(demo_mask(PHOTOGRAPH, PART))))
        if not answer.value.json()["data"]["result"]:
            raise SystemExit("the click gave no mask")
        run.reached("first mask")


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--label-studio", type=Path, default=Path(".venv-label-studio/bin/label-studio"))
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    label_studio = arguments.label_studio.resolve()
    prepare_demo(label_studio)
    load_before = os.getloadavg()[0]
    runs = []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory(prefix="refcut-demo-") as folder:
            runs.append(measure(label_studio, Path(folder)))
    print(f"{machine()}; {len(runs)} runs; load before {load_before:.1f}, after {os.getloadavg()[0]:.1f}")
    rows = [
        [
            stage,
            f"{statistics.median(run.wall_s[stage] for run in runs):.1f}",
            f"{max(run.wall_s[stage] for run in runs):.1f}",
            f"{statistics.median(run.processor_s[stage] for run in runs):.1f}",
        ]
        for stage in STAGES
    ]
    print_table(["reached after", "median s", "longest s", "processor time s"], rows)
    write_json(
        arguments.json, {"runs": [{"wall_s": run.wall_s, "processor_s": run.processor_s} for run in runs]}
    )


if __name__ == "__main__":
    main()
