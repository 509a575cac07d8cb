"""`refcut demo`: runs the backend and a real Label Studio together, with two projects to click in.

All state is in one folder. `DEMO_PROJECTS` says what the projects are.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

import httpx
import numpy as np
from numpy.typing import NDArray

from model.data.annotated_objects import AnnotatedObject, read_annotated_objects
from refcut_backend.cli.demo_label_studio import (
    BrushRegion,
    LabelStudioProject,
    LabelStudioServer,
    Owner,
    log_tail,
)
from refcut_backend.cli.empty_database import empty_database
from refcut_backend.cli.run import STOP_SIGNALS, check_port_is_free, handle_stop_signals, stop_limit_s
from refcut_backend.clicks.service import ANSWERED, EMPTY_CONTEXT
from refcut_backend.errors import ConfigError
from refcut_backend.label_studio.label_config import REFERENCE_CHOICE
from refcut_backend.playground.demo import PARTS_FILE, PHOTOGRAPHS
from refcut_backend.settings import Settings
from refcut_backend.system.child_processes import Lifeline, stop_within

LABEL_CONFIGS = Path(__file__).parent / "label_config"
LABEL_STUDIO_VERSION = "1.23.2"


@dataclass(frozen=True)
class DemoProject:
    """A project of the demo.

    Attributes:
        title: Its title in Label Studio.
        config_path: Its label config.
        photographs: Glob pattern of its photographs in `PHOTOGRAPHS`.
        reference: Name of the photograph with the references, without its suffix.
        label_parts: Label to the parts of that photograph whose union is the label's reference.
    """

    title: str
    config_path: Path
    photographs: str
    reference: str
    label_parts: dict[str, tuple[str, ...]]

    def photograph_paths(self) -> list[Path]:
        """The photographs in the order of their tasks, the one with the references first."""
        found = sorted(PHOTOGRAPHS.glob(self.photographs), key=lambda path: path.stem != self.reference)
        if not found:
            raise ConfigError(f"{PHOTOGRAPHS} has no photographs", hint="install this program again")
        return found

    def reference_regions(self) -> list[BrushRegion]:
        """The regions on the first photograph: one per label, each marked as its label's reference."""
        return [
            BrushRegion(f"demo-{label.lower()}", label, self._mask(parts), REFERENCE_CHOICE)
            for label, parts in self.label_parts.items()
        ]

    def _mask(self, parts: tuple[str, ...]) -> NDArray[np.bool_]:
        masks = np.stack([demo_mask(self.reference, part) for part in parts])
        return np.asarray(masks.any(axis=0))


DEMO_PROJECTS = (
    DemoProject(
        title="RefCut demo: cars",
        config_path=LABEL_CONFIGS / "clicks_brush.xml",
        photographs="car_parts_*.jpg",
        reference="car_parts_car118",
        label_parts={
            "Door": ("front_door", "back_door"),
            "Wheel": ("wheel",),
            "Hood": ("hood",),
            "Light": ("front_light",),
        },
    ),
    DemoProject(
        title="RefCut demo: clothes",
        config_path=PHOTOGRAPHS / "clothes.xml",
        photographs="ccp_*.jpg",
        reference="ccp_0235",
        label_parts={
            name.capitalize(): (name,) for name in ("bag", "coat", "dress", "hair", "shoes", "skin")
        },
    ),
)


def demo_mask(photograph: str, part: str) -> NDArray[np.bool_]:
    """Mask of a part on a demo photograph.

    Args:
        photograph: File name without suffix.
        part: Name of the part in `parts.json`.

    Returns:
        Mask (H, W) in the pixels of the photograph.

    Raises:
        ConfigError: If there is no such mask.
    """
    try:
        annotated_object = next(
            annotated_object
            for annotated_object in _annotated_objects()
            if annotated_object.image_path.stem == photograph
        )
        return annotated_object.masks()[part]
    except (StopIteration, KeyError):
        raise ConfigError(
            f"{PARTS_FILE} has no {part} of {photograph}", hint="install this program again"
        ) from None


@cache
def _annotated_objects() -> list[AnnotatedObject]:
    return read_annotated_objects(PARTS_FILE, PHOTOGRAPHS, grouping="object")


def make_demo_projects(label_studio: str, token: str, backend: str) -> dict[str, int]:
    """Create the missing demo projects and attach the backend to all of them.

    The backend is attached before the references are submitted, so that webhooks announce them.

    Args:
        label_studio: URL of Label Studio.
        token: A legacy token of the owner.
        backend: URL of the backend as Label Studio reaches it.

    Returns:
        Title to project id.
    """
    existing = LabelStudioProject.titled(label_studio, token)
    for demo in DEMO_PROJECTS:
        if demo.title not in existing:
            existing[demo.title] = _make(demo, label_studio, token, backend)
        else:
            _attach(label_studio, existing[demo.title], token, backend)
    return {demo.title: existing[demo.title] for demo in DEMO_PROJECTS}


def _make(demo: DemoProject, label_studio: str, token: str, backend: str) -> int:
    project = LabelStudioProject.create(label_studio, demo.title, demo.config_path.read_text(), token)
    with closing(project):
        first, *_ = project.upload_images(demo.photograph_paths())
        project.connect_backend(backend)
        project.annotate(first, demo.reference_regions())
        return project.id


def _attach(label_studio: str, project_id: int, token: str, backend: str) -> None:
    with closing(LabelStudioProject(label_studio, project_id, token)) as project:
        if backend not in project.backends():
            project.connect_backend(backend)


USER = "demo@example.com"
START_LIMIT_S = 120.0
READY_LIMIT_S = 600.0
"""A worker may convert the model first: 18 s of processor time, ten times that on busy cores."""
REPORT_EVERY_S = 60.0
STATUS_LIMIT_S = 5.0
STOP_MARGIN_S = 5.0
"""What `refcut run` may need beyond its own limits until its process has ended."""
POLL_S = 0.3


class _StoppedError(Exception):
    """Raised by the signal handler at Ctrl-C or SIGTERM."""


def run_demo(settings: Settings, folder: Path, label_studio: Path, label_studio_port: int) -> int:
    """Run the demo until Ctrl-C.

    Args:
        settings: Settings of the backend; its state folder is replaced.
        folder: Folder for all state of the demo.
        label_studio: The `label-studio` command in its own virtual environment.
        label_studio_port: Port of Label Studio on this machine.

    Returns:
        The exit status: 0 after a signal, 1 if the backend stopped by itself.

    Raises:
        ConfigError: If something is missing or does not start; the message says what to do.
    """
    _check_is_installed(label_studio)
    check_port_is_free("127.0.0.1", label_studio_port, setting="--label-studio-port")
    owner = _owner(folder)
    backend_url, log_path = settings.local_address, folder / "refcut" / "backend.log"
    handle_stop_signals(_stop)
    try:
        with ExitStack() as stack:
            print("Starting the backend and Label Studio.", flush=True)
            backend = _start_backend(log_path)
            stack.callback(_stop_backend, backend, stop_limit_s(settings) + STOP_MARGIN_S)
            server = LabelStudioServer(label_studio, folder / "label-studio", label_studio_port, owner)
            stack.callback(server.stop)
            server.start(lambda: _check_is_running(backend, log_path))
            _wait_until("/health", backend_url, backend, log_path, START_LIMIT_S)
            projects = make_demo_projects(server.url, owner.token, backend_url)
            _wait_until("/readyz", backend_url, backend, log_path, READY_LIMIT_S)
            print(greeting(server.url, owner, projects, folder, log_path), flush=True)
            return _watch(backend, backend_url) or 1
    except _StoppedError:
        return 0


def prepare_demo(label_studio: Path) -> None:
    """Make what the first start would make otherwise: Label Studio's tables.

    Args:
        label_studio: The `label-studio` command in its own virtual environment.

    Raises:
        ConfigError: If it is missing, or fails.
    """
    _check_is_installed(label_studio)
    empty_database(label_studio)


def _check_is_installed(label_studio: Path) -> None:
    if not label_studio.is_file():
        raise ConfigError(f"{label_studio} is missing", hint=_how_to_install(label_studio))


def _how_to_install(label_studio: Path) -> str:
    """How to get Label Studio where it is looked for: in an environment of its own, for it needs other versions."""
    environment = shlex.quote(str(label_studio.parents[1]))
    return (
        f"install it there (1 GB): python3 -m venv {environment} && "
        f"{environment}/bin/pip install label-studio=={LABEL_STUDIO_VERSION}; in a checkout `make demo` does this"
    )


def _owner(folder: Path) -> Owner:
    """The demo's account: generated once and stored, like Label Studio's database, in a folder for this user only."""
    path = folder / "account.json"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not path.exists():
        account = {"user": USER, "password": secrets.token_urlsafe(9), "token": secrets.token_hex(20)}
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(account, file)
    path.chmod(0o600)
    return Owner(**json.loads(path.read_text()))


def _start_backend(log_path: Path) -> subprocess.Popen[bytes]:
    """The backend writes its log and its own greeting to a file, so that the demo's greeting stays on the screen."""
    log_path.parent.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "refcut_backend", "run"]
    with log_path.open("ab") as log:
        return Lifeline().start(
            command,
            os.environ | {"REFCUT_STATE_DIR": str(log_path.parent)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _check_is_running(backend: subprocess.Popen[bytes], log_path: Path) -> None:
    if backend.poll() is not None:
        raise ConfigError(f"the backend did not start\n{log_tail(log_path)}")


def _wait_until(
    path: str, backend_url: str, backend: subprocess.Popen[bytes], log_path: Path, limit_s: float
) -> None:
    deadline = time.monotonic() + limit_s
    with httpx.Client(base_url=backend_url, trust_env=False) as client:
        while time.monotonic() < deadline:
            _check_is_running(backend, log_path)
            try:
                client.get(path).raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(POLL_S)
    raise ConfigError(f"the backend did not answer within {limit_s:.0f} s\n{log_tail(log_path)}")


def _watch(backend: subprocess.Popen[bytes], backend_url: str) -> int:
    """Waits until the backend ends and returns its status. Says every minute what was answered.

    In a terminal the new line replaces the old one, so that the greeting above it stays on the screen.
    """
    begin, end = ("\r\x1b[2K", "") if sys.stdout.isatty() else ("", "\n")
    while True:
        try:
            return backend.wait(REPORT_EVERY_S)
        except subprocess.TimeoutExpired:
            print(begin + activity(backend_url), end=end, flush=True)


def activity(backend_url: str) -> str:
    """One line: the time, and how many clicks the backend has answered since its start."""
    now = time.strftime("%H:%M")
    try:
        answer = httpx.get(
            f"{backend_url}/status", timeout=STATUS_LIMIT_S, trust_env=False
        ).raise_for_status()
    except httpx.HTTPError:
        return f"{now}  the backend does not say what it does; its log may say why"
    outcomes: dict[str, int] = answer.json()["clicks"]
    others = [name for name in sorted(outcomes) if name not in (ANSWERED, EMPTY_CONTEXT)]
    more = "".join(f", {outcomes[name]} {name}" for name in others)
    return f"{now}  clicks answered with a mask: {outcomes.get(ANSWERED, 0)}{more}"


def _stop_backend(backend: subprocess.Popen[bytes], limit_s: float) -> None:
    backend.terminate()
    stop_within(backend, limit_s)


def _stop(_signum: int, _frame: FrameType | None) -> None:
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)  # a second Ctrl-C would interrupt the clean-up
    raise _StoppedError


def greeting(label_studio: str, owner: Owner, projects: dict[str, int], folder: Path, log_path: Path) -> str:
    """What the demo prints when everything runs.

    Args:
        label_studio: URL of Label Studio.
        owner: The account to sign in with.
        projects: Title to project id.
        folder: Folder of the demo's state.
        log_path: Log of the backend.
    """
    return "\n".join(
        [
            "",
            f"Label Studio  {label_studio}",
            f"  user        {owner.user}",
            f"  password    {owner.password}",
            *(f"  {title:<24} {label_studio}/projects/{number}/data" for title, number in projects.items()),
            f"State folder  {folder}",
            f"Log           {log_path}",
            "",
            "Sign in, open a project, and open any photograph but the first, which holds the references. Then:",
            "  1. Switch Auto-Annotation on, under the photograph. The browser remembers it.",
            "  2. Click on a label in the row 'Click'. Later its number does the same.",
            "  3. Press M (Auto-Detect), and click on the thing.",
            "Alt+click removes, S and L make the mask smaller and larger, the tick under the photograph accepts it.",
            "",
            "Label Studio runs with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false, so that it may call a",
            "backend on this machine, and with legacy tokens, with which the backend reads the photographs.",
            "Ctrl-C stops everything.",
        ]
    )
