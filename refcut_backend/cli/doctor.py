"""What a project needs of its Label Studio: address, token, backend, webhook, label config, one real image."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import numpy as np
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from rich.console import Console
from rich.text import Text
from sqlalchemy import Engine, text

from model.checkpoints.version_folder import version_name
from model.errors import ModelError
from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.errors import QueueUnavailableError, RefCutError
from refcut_backend.images.address import TaskImage, image_of_task
from refcut_backend.images.cache import open_image_cache
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio.client import connect, explain
from refcut_backend.label_studio.label_config import problems, read_label_config
from refcut_backend.queue.heartbeats import living_workers
from refcut_backend.queue.redis import check_redis, connect_redis
from refcut_backend.settings import Settings

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """state: "ok", "note" (works, but know it) or "wrong". advice: what to do, empty when all is well."""

    subject: str
    state: State
    what: str
    advice: str = ""


Check = Callable[[], Iterable[Finding]]


def run_checks(checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """All findings in order. What a check raises is a finding too, and ends that check alone.

    checks: (subject, check) pairs; the subject is used for what a check raises.
    """
    for subject, check in checks:
        try:
            yield from check()
        except (RefCutError, ModelError) as error:
            yield Finding(subject, "wrong", error.message, error.hint)
        except Exception as error:
            # Its text may hold whatever was asked or answered, secrets included.
            yield Finding(
                subject,
                "wrong",
                f"the check failed unexpectedly ({type(error).__name__})",
                "please report this",
            )


class ProjectDoctor:
    """The checks of one project, one after another: a later one makes sense only when those before are well."""

    def __init__(self, settings: Settings, project_id: int) -> None:
        self._settings = settings
        self._project_id = project_id
        self._subject = f"project {project_id}"

    def check(self) -> Iterator[Finding]:
        """Raises RefCutError when the project is unknown, its Label Studio refuses, or its image cannot be had."""
        engine = open_database(self._settings.database)
        projects = known_projects(self._settings, engine)
        connection = projects.connection(self._project_id)
        label_config = projects.label_config(self._project_id) or ""
        try:
            api = connect(connection)
            user = api.users.whoami()
            yield self._ok(f"Label Studio at {connection.label_studio} takes the token of {user.email}")
            yield from self._check_backend(api)
            yield from self._check_config(label_config)
            yield from self._check_image(api, engine, projects, label_config)
        except (ApiError, httpx.HTTPError) as error:
            raise explain(error, connection.label_studio) from None

    def _check_backend(self, api: LabelStudio) -> Iterator[Finding]:
        backends: list[Any] = list(api.ml.list(project=self._project_id))
        interactive = [backend for backend in backends if backend.is_interactive]
        if not interactive:
            yield self._wrong(
                "no interactive ML backend is attached",
                "Settings > Model: connect this backend with 'Interactive preannotations' on",
            )
            return
        yield self._ok(f"clicks go to {interactive[0].url}")
        if len(interactive) > 1:
            yield self._note(
                "several interactive backends: Label Studio uses the first only", "remove the others"
            )
        hooks = [hook for hook in api.webhooks.list(project=str(self._project_id)) if hook.is_active]
        if any(str(hook.url).startswith(str(interactive[0].url)) for hook in hooks):
            yield self._ok("a webhook tells the backend of annotations")
        else:
            yield self._wrong(
                "no active webhook leads to the backend: references are followed by polling only",
                "remove the backend in Settings > Model and connect it again: Label Studio makes the webhook",
            )

    def _check_config(self, label_config: str) -> Iterator[Finding]:
        found = problems(read_label_config(label_config))
        yield from (self._wrong(problem, "see docs/label-studio.md, 'The label config'") for problem in found)
        if not found:
            yield self._ok("the label config has clicks, masks and roles")

    def _check_image(
        self, api: LabelStudio, engine: Engine, projects: Projects, label_config: str
    ) -> Iterator[Finding]:
        task = next(iter(api.tasks.list(project=self._project_id, page_size=1, fields="task_only")), None)
        controls = read_label_config(label_config)
        if task is None or not controls.masks:
            yield self._note("no task to try", "import photographs")
            return
        address = image_of_task(dict(task.data), controls.masks[0].image_field)
        image_cache = open_image_cache(self._settings, projects, Addresses(engine))
        started = time.monotonic()
        image = image_cache.open(TaskImage(self._project_id, int(task.id), address))
        taken_ms = 1000 * (time.monotonic() - started)
        yield self._ok(
            f"the image of task {task.id} is read: {image.width} x {image.height} px, {taken_ms:.0f} ms"
        )

    def _ok(self, what: str) -> Finding:
        return Finding(self._subject, "ok", what)

    def _note(self, what: str, advice: str) -> Finding:
        return Finding(self._subject, "note", what, advice)

    def _wrong(self, what: str, advice: str) -> Finding:
        return Finding(self._subject, "wrong", what, advice)


def known_projects(settings: Settings, engine: Engine) -> Projects:
    """The projects, with what the settings say about token and address."""
    return Projects(engine, settings.own_token, settings.label_studio_url)


def project_checks(settings: Settings, project_id: int | None) -> list[tuple[str, Check]]:
    """Checks of one project, or of all that have called /setup."""
    if project_id is not None:
        return [(f"project {project_id}", ProjectDoctor(settings, project_id).check)]
    try:
        known = known_projects(settings, open_database(settings.database)).known()
    except RefCutError:
        return []  # the database's own check has said why
    if not known:
        return [("projects", _none_yet)]
    return [(f"project {id}", ProjectDoctor(settings, id).check) for id in known]


def _none_yet() -> Iterator[Finding]:
    yield Finding(
        "projects",
        "note",
        "no Label Studio has called /setup yet",
        "connect the backend: Settings > Model > Connect Model",
    )


HTTP_LIMIT_S = 3.0


def machine_checks(settings: Settings) -> list[tuple[str, Check]]:
    """The checks in the order in which a click needs them."""
    return [
        ("redis", lambda: check_the_redis(settings)),
        ("database", lambda: check_database(settings)),
        ("model", lambda: check_model(settings)),
        ("web server", lambda: check_web(settings)),
    ]


def check_the_redis(settings: Settings) -> Iterator[Finding]:
    """Whether the named Redis answers, and whether workers are there."""
    if settings.redis_url is None:
        yield Finding("redis", "ok", "none is named: `refcut run` embeds one of its own")
        return
    check_redis(settings.redis_url)
    yield Finding("redis", "ok", "answers")
    connection = connect_redis(settings.redis_url)
    try:
        workers = [worker for worker in living_workers(connection) if worker.ready]
    except QueueUnavailableError as error:
        yield Finding("worker", "wrong", error.message, "check its log")
        return
    if workers:
        yield Finding("worker", "ok", f"{len(workers)} ready on this Redis")
    else:
        yield Finding("worker", "wrong", "none is ready on this Redis", "start `refcut worker`")


def check_database(settings: Settings) -> Iterator[Finding]:
    """Whether the database opens. Raises ConfigError when it does not."""
    engine = open_database(settings.database)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    engine.dispose()
    yield Finding("database", "ok", f"{engine.dialect.name} opens")


def check_model(settings: Settings) -> Iterator[Finding]:
    """Loads the model as a worker does and makes one click. Raises ModelError or ConfigError when that fails."""
    yield Finding("model", "ok", f"{version_name(settings.model_dir)} in {settings.model_dir}")
    import torch  # only here: the other checks need not wait for it

    from model.checkpoints.weights import load_network
    from model.predictor import RefCutPredictor, serving_settings
    from model.runtime.select import with_runtime
    from model.types import Click
    from refcut_backend.inference.load_model import choose_device

    device = choose_device(settings.device)
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        yield Finding(
            "device",
            "wrong" if settings.device != "cpu" else "note",
            "an NVIDIA GPU seems to be here, but torch does not use it",
            "install the CUDA build of torch, or set REFCUT_DEVICE=cpu if that is meant",
        )
    else:
        yield Finding("device", "ok", f"{device}, {torch.get_num_threads()} threads")
    network = load_network(settings.model_dir).to(device)
    served = serving_settings(network.config)
    stages = with_runtime(network, served, settings.runtime, settings.runtime_cache_dir)
    predictor = RefCutPredictor(stages, served)
    predictor.set_image(np.full((64, 64, 3), 127, np.uint8))
    predictor.predict([Click(32.0, 32.0)])
    started = time.monotonic()
    predictor.predict([Click(32.0, 32.0), Click(10.0, 10.0, False)])
    yield Finding(
        "click",
        "ok",
        f"{1000 * (time.monotonic() - started):.0f} ms in the network ({type(stages).__name__})",
    )


def check_web(settings: Settings) -> Iterator[Finding]:
    """Whether the web server runs and is ready for clicks."""
    address = settings.local_address
    try:
        with httpx.Client(base_url=address, timeout=HTTP_LIMIT_S, trust_env=False) as client:
            ready = client.get("/readyz")
    except httpx.HTTPError:
        yield Finding("web server", "note", f"nothing listens on {address}", "start it with `refcut run`")
        return
    if ready.is_success:
        yield Finding("web server", "ok", f"{address} is ready")
    else:
        yield Finding("web server", "wrong", f"{address} is not ready: {ready.text[:200]}", "see its log")


MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "wrong": ("✗", "red")}


def print_findings(findings: Iterable[Finding], console: Console) -> bool:
    """Prints them; returns whether nothing was wrong."""
    well = True
    for finding in findings:
        mark, colour = MARKS[finding.state]
        line = Text.assemble((f"{mark} ", colour), (f"{finding.subject:<12} ", "bold"), finding.what)
        console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(Text(f"  {'':<12} → {finding.advice}", style=colour), soft_wrap=True)
        well = well and finding.state != "wrong"
    return well
