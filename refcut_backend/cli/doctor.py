"""`refcut doctor`: the checks of this machine and of each project, in the order in which a click needs them.

A new check is a generator of `Finding` and an entry in `machine_checks` or `ProjectDoctor.check`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import httpx
import numpy as np
from label_studio_sdk.base_client import LabelStudioBase
from label_studio_sdk.core.api_error import ApiError
from rich.console import Console
from rich.text import Text
from sqlalchemy import text

from model.checkpoints.version_folder import version_name
from model.errors import ModelError
from refcut_backend.cli.running_backends import require_database
from refcut_backend.clicks.second_labels import twice_labelled
from refcut_backend.database.engine import open_database
from refcut_backend.errors import RefCutError
from refcut_backend.images.address import TaskImage, image_of_task
from refcut_backend.images.cache import ImageCache, open_image_cache
from refcut_backend.images.uploads import Uploads
from refcut_backend.label_studio.client import connect, explain
from refcut_backend.label_studio.label_config import problems, read_label_config
from refcut_backend.label_studio.tasks import AnotherProjectError, check_same_project
from refcut_backend.project_ids import number_of, project_name
from refcut_backend.queue.queue_state import read_queue_state
from refcut_backend.queue.redis import check_redis, connect_redis
from refcut_backend.references.left_out import annotations_left_out
from refcut_backend.references.selection import IN_USE
from refcut_backend.settings import Settings
from refcut_backend.wiring import Stores, open_stores

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: What was checked, such as "redis" or "project 7".
        state: "ok", "note" (works, with a limitation) or "wrong".
        what: What was found.
        advice: What to do about it; empty if nothing.
    """

    subject: str
    state: State
    what: str
    advice: str = ""


Check = Callable[[], Iterable[Finding]]


def run_checks(checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """Run the checks in order. An exception is a finding too, and ends only the check that raised it.

    Args:
        checks: Pairs of a subject and a check; the subject names the finding of an exception.
    """
    for subject, check in checks:
        try:
            yield from check()
        except (RefCutError, ModelError) as error:
            yield Finding(subject, "wrong", error.message, error.hint)
        except Exception as error:
            # The text of an unexpected error may hold a request or a response, with secrets.
            yield Finding(
                subject,
                "wrong",
                f"the check failed unexpectedly ({type(error).__name__})",
                "please report this",
            )


class ProjectDoctor:
    """The checks of one project. Each one needs the ones before, so the first failure ends them."""

    def __init__(self, settings: Settings, project_id: int) -> None:
        self._settings = settings
        self._project_id = project_id
        self._number = number_of(project_id)
        self._subject = f"project {project_name(project_id)}"

    def check(self) -> Iterator[Finding]:
        """Check Label Studio, backend, webhook, label config and the image of one task.

        Raises:
            RefCutError: If the project is unknown, Label Studio refuses, or the image cannot be read.
        """
        require_database(self._settings)
        with open_stores(self._settings) as stores:
            connection = stores.projects.connection(self._project_id)
            label_config = stores.projects.label_config(self._project_id) or ""
            try:
                api = connect(connection)
                user = api.users.whoami()
                yield self._ok(f"Label Studio at {connection.label_studio} accepts the token of {user.email}")
                check_same_project(api, self._project_id, connection)
                yield from self._check_backend(api)
                yield from self._check_config(label_config)
                yield from self._check_annotations(stores)
                image_cache = open_image_cache(
                    self._settings, stores.projects, stores.addresses, Uploads(stores.engine)
                )
                yield from self._check_image(api, image_cache, label_config)
                yield from self._check_references(stores, image_cache, label_config)
            except AnotherProjectError as error:
                yield self._note(error.message, error.hint)
            except (ApiError, httpx.HTTPError) as error:
                raise explain(error, connection.label_studio) from None

    def _check_backend(self, api: LabelStudioBase) -> Iterator[Finding]:
        backends: list[Any] = list(api.ml.list(project=self._number))
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
        hooks = [hook for hook in api.webhooks.list(project=str(self._number)) if hook.is_active]
        if any(str(hook.url).startswith(str(interactive[0].url)) for hook in hooks):
            yield self._ok("a webhook sends annotations to the backend")
        else:
            yield self._wrong(
                "no active webhook leads to the backend: references are updated by polling only",
                "remove the backend in Settings > Model and connect it again: Label Studio creates the webhook",
            )

    def _check_config(self, label_config: str) -> Iterator[Finding]:
        found = problems(read_label_config(label_config))
        yield from (self._wrong(problem, "see docs/label-studio.md, 'The label config'") for problem in found)
        if not found:
            yield self._ok("the label config has clicks, masks and roles")

    def _check_annotations(self, stores: Stores) -> Iterator[Finding]:
        for one in annotations_left_out(stores.engine, self._project_id):
            yield self._note(f"left out: {one}", "the project's other annotations are used")
        twice = twice_labelled(stores.engine, self._project_id)
        if twice:
            named = ", ".join(str(one.annotation_id) for one in twice[:ANNOTATIONS_NAMED])
            more = ", ..." if len(twice) > ANNOTATIONS_NAMED else ""
            yield self._note(
                f"{sum(one.masks for one in twice)} masks have the label of a click as a second one: annotations "
                f"{named}{more}",
                f"`refcut masks repair --project {project_name(self._project_id)}` takes it away; press Escape before "
                "the tick",
            )

    def _check_image(
        self, api: LabelStudioBase, image_cache: ImageCache, label_config: str
    ) -> Iterator[Finding]:
        page = api.tasks.list(project=self._number, page_size=1, fields="task_only")
        task = next(iter(page.items or []), None)
        controls = read_label_config(label_config)
        if task is None or not controls.masks:
            yield self._note("no task to try", "import photographs")
            return
        address = image_of_task(dict(task.data), controls.masks[0].image_field)
        started = time.monotonic()
        image = image_cache.open(TaskImage(self._project_id, int(task.id), address))
        taken_ms = 1000 * (time.monotonic() - started)
        yield self._ok(
            f"the image of task {task.id} is read: {image.width} x {image.height} px, {taken_ms:.0f} ms"
        )

    def _check_references(
        self, stores: Stores, image_cache: ImageCache, label_config: str
    ) -> Iterator[Finding]:
        """Reads the image of every reference in use, as a worker does."""
        labels = read_label_config(label_config).region_labels
        listed = stores.references.overview(self._project_id, self._settings.max_references_per_label, labels)
        used = [one.candidate for one in listed if one.state in IN_USE]
        failed = 0
        for candidate in used[:REFERENCES_TRIED]:
            stored = stores.references.load(candidate.id)
            if stored is None:
                continue
            try:
                image_cache.open(TaskImage(self._project_id, stored.task_id, stored.image_address))
            except RefCutError as error:
                failed += 1
                yield self._wrong(
                    f"the reference of '{candidate.label}' in task {candidate.task_id}, annotation "
                    f"{candidate.annotation_id}, is left out: {error.message}",
                    error.hint or "restore the image, or give another reference",
                )
        if used and not failed:
            tried = min(len(used), REFERENCES_TRIED)
            yield self._ok(f"the images of {tried} references are read")

    def _ok(self, what: str) -> Finding:
        return Finding(self._subject, "ok", what)

    def _note(self, what: str, advice: str) -> Finding:
        return Finding(self._subject, "note", what, advice)

    def _wrong(self, what: str, advice: str) -> Finding:
        return Finding(self._subject, "wrong", what, advice)


def project_checks(settings: Settings, project_id: int | None) -> list[tuple[str, Check]]:
    """The checks of one project, or of all known projects if `project_id` is None."""
    if project_id is not None:
        return [(f"project {project_name(project_id)}", ProjectDoctor(settings, project_id).check)]
    try:
        require_database(settings)
        with open_stores(settings) as stores:
            known = stores.projects.known()
    except RefCutError:
        return []  # the check of the database reports why
    if not known:
        return [("projects", _none_yet)]
    return [(f"project {project_name(one)}", ProjectDoctor(settings, one).check) for one in known]


def _none_yet() -> Iterator[Finding]:
    yield Finding(
        "projects",
        "note",
        "no Label Studio has called /setup yet",
        "connect the backend: Settings > Model > Connect Model",
    )


HTTP_LIMIT_S = 3.0
ANNOTATIONS_NAMED = 10
REFERENCES_TRIED = 50
"""How many images of references are read per project."""


def machine_checks(settings: Settings) -> list[tuple[str, Check]]:
    """The checks of Redis, database, model and web server."""
    return [
        ("redis", lambda: check_the_redis(settings)),
        ("database", lambda: check_database(settings)),
        ("model", lambda: check_model(settings)),
        ("web server", lambda: check_web(settings)),
    ]


def check_the_redis(settings: Settings) -> Iterator[Finding]:
    """Check that the Redis of REFCUT_REDIS_URL answers and can be written, and that workers are ready.

    Raises:
        ConfigError: If it does not answer.
        QueueUnavailableError: If it cannot be written.
    """
    if settings.redis_url is None:
        yield Finding("redis", "ok", "REFCUT_REDIS_URL is not set: `refcut run` embeds a Redis")
        return
    check_redis(settings.redis_url)
    with connect_redis(settings.redis_url) as connection:
        workers = [worker for worker in read_queue_state(connection).workers if worker.ready]
    yield Finding("redis", "ok", "answers and can be written")
    if workers:
        yield Finding("worker", "ok", f"{len(workers)} ready on this Redis")
    else:
        yield Finding("worker", "wrong", "none is ready on this Redis", "start `refcut worker`")


def check_database(settings: Settings) -> Iterator[Finding]:
    """Check that there is a database and that it opens. Raises ConfigError if not."""
    require_database(settings)
    engine = open_database(settings.database)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    engine.dispose()
    yield Finding("database", "ok", f"{engine.dialect.name} opens")


def check_model(settings: Settings) -> Iterator[Finding]:
    """Load the model as a worker does, and compute one click.

    Raises:
        ModelError: If the model cannot be loaded.
        ConfigError: If the device or the runtime of the settings is not available.
    """
    yield Finding("model", "ok", f"{version_name(settings.model_dir)} in {settings.model_dir}")
    import torch  # takes seconds; the checks before do not wait for it

    from model.checkpoints.weights import load_network
    from model.predictor import RefCutPredictor
    from model.predictor_config import serving_settings
    from model.runtime.select import with_runtime
    from model.types import Click
    from refcut_backend.inference.load_model import choose_device

    device = choose_device(settings.device)
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        yield Finding(
            "device",
            "wrong" if settings.device != "cpu" else "note",
            "the machine seems to have an NVIDIA GPU, but torch does not use it",
            "install the CUDA build of torch, or set REFCUT_DEVICE=cpu to use the processor on purpose",
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
    """Check that the web server runs and is ready for clicks."""
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
    """Print the findings. Returns True if none of them is "wrong"."""
    all_good = True
    for finding in findings:
        mark, colour = MARKS[finding.state]
        line = Text.assemble((f"{mark} ", colour), (f"{finding.subject:<12} ", "bold"), finding.what)
        console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(Text(f"  {'':<12} → {finding.advice}", style=colour), soft_wrap=True)
        all_good = all_good and finding.state != "wrong"
    return all_good


def print_json(findings: Iterable[Finding]) -> bool:
    """Print each finding as one line of JSON as soon as it is there. Returns as `print_findings` does."""
    all_good = True
    for finding in findings:
        print(json.dumps(asdict(finding)), flush=True)
        all_good = all_good and finding.state != "wrong"
    return all_good
