"""A team that annotates and clicks at a backend of its own, which others kill now and then."""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import httpx
import psutil
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from benchmarks.report import machine
from refcut_backend.database.engine import open_database
from refcut_backend.database.tables import AnnotationState
from refcut_backend.label_studio.payloads import Timestamp
from refcut_backend.system.child_processes import Lifeline
from tests.support.label_studio_api import TOKEN, LabelStudioApi, serving
from tests.support.recorded import LABEL_CONFIG, REPOSITORY, brush_result, click_result
from tests.support.running_backend import free_port
from tests.support.training_world import mask, photograph, png

PROJECT = 7
FIRST_ANNOTATIONS = 24
SIZE_HW = (90, 120)
CLICK_EVERY_S = 0.3
RECONCILE_S = 5
LIMIT_S = 400
STOP_LIMIT_S = 60


@dataclass
class Team:
    """The Label Studio and what was done in it. submitted: annotation to its newest state."""

    api: LabelStudioApi
    client: httpx.Client
    rng: random.Random
    submitted: dict[int, str] = field(default_factory=dict)
    lost_webhooks: int = 0
    clicks: Counter[str] = field(default_factory=Counter)
    slowest_click_s: float = 0.0
    versions: set[str] = field(default_factory=set)

    def submit(self) -> None:
        """A new annotation, or now and then an older one changed."""
        known = list(self.submitted)
        change = len(known) > FIRST_ANNOTATIONS and self.rng.random() < 0.3
        number = self.rng.choice(known) if change else len(known) + 1
        self.api.images.setdefault(f"{number}.png", png(photograph(number, SIZE_HW)))
        place = self.rng.randrange(5, 30)
        masks = [("d", "Door", mask(place, SIZE_HW)), ("w", "Wheel", mask(place + 40, SIZE_HW))]
        webhook = self.api.annotate(number, number, *(brush_result(*one) for one in masks))
        self.submitted[number] = Timestamp(self.api.annotations[number]["updated_at"])
        try:
            self.client.post("/webhook", json=webhook, timeout=1).raise_for_status()
        except httpx.HTTPError:
            self.lost_webhooks += 1

    def click(self, number: int) -> None:
        """Send one click on the first task and count how it ends."""
        body = {
            "tasks": [{"id": 1, "data": self.api.tasks[1]["data"]}],
            "project": f"{PROJECT}.1",
            "label_config": LABEL_CONFIG,
            "params": {"context": {"result": [click_result(f"dot{number}", 50, 50, "Wheel")]}},
        }
        sent = time.monotonic()
        try:
            answer = self.client.post("/predict", json=body, timeout=100).raise_for_status()
        except httpx.HTTPStatusError as error:
            self.clicks[f"status {error.response.status_code}"] += 1
            return
        except httpx.HTTPError:
            self.clicks["no web server"] += 1
            return
        finally:
            self.slowest_click_s = max(self.slowest_click_s, time.monotonic() - sent)
        reason = answer.headers.get("X-RefCut-Reason", "answered")
        self.clicks[reason] += 1
        if reason in ("answered", "empty_mask"):
            self.versions.add(answer.json()["results"][0]["model_version"])

    @contextmanager
    def clicking(self) -> Iterator[None]:
        """Keep clicking on a thread until the block ends."""
        stopping = threading.Event()
        numbers = itertools.count(sum(self.clicks.values()))

        def click_on() -> None:
            while not stopping.wait(CLICK_EVERY_S):
                self.click(next(numbers))

        thread = threading.Thread(target=click_on)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()


def unknown_annotations(engine: Engine, team: Team) -> list[int]:
    """Submitted annotations whose newest state has not arrived."""
    query = select(AnnotationState.annotation_id, AnnotationState.updated_at)
    with Session(engine) as session:
        known = {annotation: updated_at for annotation, updated_at in session.execute(query)}
    return [number for number, updated_at in team.submitted.items() if (known.get(number) or "") < updated_at]


class Backend:
    """`refcut run` on one state folder, started again where it ends. It ends with this process.

    module: what is run, with workers of its own; more: settings.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        module: str = "benchmarks.eager_run",
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self._log = (folder / "refcut.log").open("ab")
        self._environment = os.environ | {
            "REFCUT_PORT": str(port),
            "REFCUT_STATE_DIR": str(folder),
            "REFCUT_MODEL_DIR": str(folder / "tiny"),
            "REFCUT_RUNTIME": "torch",
            "REFCUT_TRAIN_AFTER_ANNOTATIONS": "0",
            "REFCUT_RECONCILE_INTERVAL_S": str(RECONCILE_S),
            "OMP_NUM_THREADS": "1",
            **more,
        }
        self._environment.pop("REFCUT_REDIS_URL", None)
        self._module = module
        self._lifeline = Lifeline()
        self.restarts = -1
        self.start()

    def start(self) -> None:
        """Start the backend."""
        self.restarts += 1
        self.process = self._lifeline.start(
            [sys.executable, "-m", self._module],
            self._environment,
            cwd=REPOSITORY,
            stdout=self._log,
            stderr=self._log,
        )

    def start_again_if_ended(self) -> None:
        """Start the backend again if its process has ended."""
        if self.process.poll() is not None:
            self.start()

    def keep_until(self, condition: Callable[[], object], limit_s: float = LIMIT_S) -> bool:
        """Keep the backend running, as a service manager does. Returns whether the condition came true in time."""
        deadline = time.monotonic() + limit_s
        while not condition():
            self.start_again_if_ended()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def kill(self, pattern: str) -> bool:
        """Whether there was such a process."""
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                if re.search(pattern, " ".join(child.cmdline()).strip()):
                    child.kill()
                    return True
        return False

    def stop(self) -> None:
        """Stop the backend with SIGTERM and wait for its end."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_LIMIT_S)
        self._log.close()


@contextmanager
def team_at_work(
    arguments: argparse.Namespace, start_backend: Callable[[Path, int], Backend], first_annotations: int
) -> Iterator[tuple[Team, Backend, Engine]]:
    """A team whose backend runs, knows the project and has its first annotations.

    Args:
        arguments: Those of `add_arguments`.
        start_backend: Starts the backend on a state folder and a port.
        first_annotations: Number of annotations before the first kill.
    """
    with ExitStack() as stack:
        folder = arguments.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="refcut-kills-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        api = stack.enter_context(serving(LabelStudioApi(PROJECT)))
        port = free_port()
        client = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        )
        backend = start_backend(folder, port)
        stack.callback(backend.stop)
        team = Team(api, client, random.Random(arguments.seed))
        connect(team, backend)
        for _ in range(first_annotations):
            team.submit()
        engine = open_database(f"sqlite:///{folder / 'refcut.db'}")
        stack.callback(engine.dispose)
        yield team, backend, engine


def add_arguments(parser: argparse.ArgumentParser, victims: Collection[str]) -> None:
    """Add the arguments that every benchmark with kills has."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=victims, help="kill nothing else")
    parser.add_argument("--keep", type=Path, help="folder for state and log, which stays")
    parser.add_argument("--json", type=Path, help="file for the figures")


def print_team(team: Team, backend: Backend, kills: str) -> None:
    """Print machine, number of kills, and what became of the annotations and clicks."""
    print(
        f"{machine()}; {kills}, {len(team.submitted)} annotations, {team.lost_webhooks} lost webhooks, "
        f"{backend.restarts} restarts of all; clicks: {dict(team.clicks)}, slowest {team.slowest_click_s:.1f} s, "
        f"by {len(team.versions)} versions"
    )


def connect(team: Team, backend: Backend) -> None:
    """As Label Studio does when the backend is added to a project. Raises SystemExit when it does not start."""
    setup = {
        "project": f"{PROJECT}.1",
        "schema": LABEL_CONFIG,
        "hostname": team.api.url,
        "access_token": TOKEN,
    }
    deadline = time.monotonic() + LIMIT_S
    while True:
        with suppress(httpx.HTTPError):
            team.client.post("/setup", json=setup).raise_for_status()
            return
        if backend.process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the backend did not start: {(backend.folder / 'refcut.log').read_text()}")
        time.sleep(0.2)
