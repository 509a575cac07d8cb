"""What a project needs of its Label Studio: address, token, backend, webhook, label config, one real image."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from sqlalchemy import Engine

from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.doctor.findings import Check, Finding
from refcut_backend.errors import RefCutError
from refcut_backend.images.address import TaskImage, image_of_task
from refcut_backend.images.cache import open_image_shelf
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio.client import connect, explain
from refcut_backend.label_studio.label_config import problems, read_label_config
from refcut_backend.settings import Settings


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
        shelf = open_image_shelf(self._settings, projects, Addresses(engine))
        started = time.monotonic()
        image = shelf.open(TaskImage(self._project_id, int(task.id), address))
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
