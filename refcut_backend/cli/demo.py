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
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from model.data.annotated_objects import AnnotatedObject, read_annotated_objects
from refcut_backend.cli.demo_backend import (
    DemoBackend,
    activity,
    check_is_running,
    start_backend,
    stop_backend,
    wait_until_up,
)
from refcut_backend.cli.demo_label_studio import (
    LabelStudioProject,
    LabelStudioServer,
    Owner,
)
from refcut_backend.cli.empty_database import empty_database
from refcut_backend.cli.run import STOP_SIGNALS, check_port_is_free, handle_stop_signals, stop_limit_s
from refcut_backend.errors import ConfigError
from refcut_backend.label_studio.label_config import REFERENCE_CHOICE
from refcut_backend.label_studio.regions import BrushRegion
from refcut_backend.playground.demo import PARTS_FILE, PHOTOGRAPHS
from refcut_backend.settings import Settings

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


def make_demo_projects(label_studio: str, token: str, backend: DemoBackend) -> dict[str, int]:
    """Create the missing demo projects and attach the backend to all of them.

    The backend is attached before the references are submitted, so that webhooks announce them.

    Args:
        label_studio: URL of Label Studio.
        token: A legacy token of the owner.
        backend: The backend.

    Returns:
        Title to project id.
    """
    existing = LabelStudioProject.titled(label_studio, token)
    for demo in DEMO_PROJECTS:
        if demo.title not in existing:
            existing[demo.title] = _make(demo, label_studio, token, backend)
        else:
            with closing(LabelStudioProject(label_studio, existing[demo.title], token)) as project:
                backend.connect(project)
    return {demo.title: existing[demo.title] for demo in DEMO_PROJECTS}


def _make(demo: DemoProject, label_studio: str, token: str, backend: DemoBackend) -> int:
    project = LabelStudioProject.create(label_studio, demo.title, demo.config_path.read_text(), token)
    with closing(project):
        first, *_ = project.upload_images(demo.photograph_paths())
        backend.connect(project)
        project.annotate(first, demo.reference_regions())
        return project.id


USER = "demo@example.com"
START_LIMIT_S = 120.0
READY_LIMIT_S = 600.0
"""A worker may convert the model first: 18 s of processor time, ten times that on busy cores."""
REPORT_EVERY_S = 60.0
STOP_MARGIN_S = 5.0
"""What `refcut run` may need beyond its own limits until its process has ended."""


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
    demo_backend, log_path = DemoBackend.of(settings), folder / "refcut" / "backend.log"
    handle_stop_signals(_stop)
    try:
        with ExitStack() as stack:
            print("Starting the backend and Label Studio.", flush=True)
            backend = start_backend(log_path, demo_backend.environment)
            stack.callback(stop_backend, backend, stop_limit_s(settings) + STOP_MARGIN_S)
            server = LabelStudioServer(label_studio, folder / "label-studio", label_studio_port, owner)
            stack.callback(server.stop)
            server.start(lambda: check_is_running(backend, log_path))
            wait_until_up("/health", demo_backend, backend, log_path, START_LIMIT_S)
            projects = make_demo_projects(server.url, owner.token, demo_backend)
            wait_until_up("/readyz", demo_backend, backend, log_path, READY_LIMIT_S)
            print(greeting(server.url, owner, projects, demo_backend, folder, log_path), flush=True)
            return _watch(backend, demo_backend) or 1
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


def _watch(backend: subprocess.Popen[bytes], demo_backend: DemoBackend) -> int:
    """Waits until the backend ends and returns its status. Says every minute what was answered.

    In a terminal the new line replaces the old one, so that the greeting above it stays on the screen.
    """
    begin, end = ("\r\x1b[2K", "") if sys.stdout.isatty() else ("", "\n")
    while True:
        try:
            return backend.wait(REPORT_EVERY_S)
        except subprocess.TimeoutExpired:
            print(begin + activity(demo_backend), end=end, flush=True)


def _stop(_signum: int, _frame: FrameType | None) -> None:
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)  # a second Ctrl-C would interrupt the clean-up
    raise _StoppedError


def greeting(
    label_studio: str,
    owner: Owner,
    projects: dict[str, int],
    backend: DemoBackend,
    folder: Path,
    log_path: Path,
) -> str:
    """What the demo prints when everything runs.

    Args:
        label_studio: URL of Label Studio.
        owner: The account to sign in with.
        projects: Title to project id.
        backend: The backend.
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
            f"Pages         {backend.url}/",
            *([f"  user        {backend.user}, password REFCUT_BASIC_AUTH_PASSWORD"] if backend.user else []),
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
