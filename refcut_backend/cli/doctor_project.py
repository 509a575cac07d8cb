"""`refcut doctor`: the checks of one project, through its Label Studio."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
from label_studio_sdk.base_client import LabelStudioBase
from label_studio_sdk.core.api_error import ApiError
from starlette.datastructures import Headers

from refcut_backend.api.auth import WEBHOOK, WEBHOOK_HINT, Access
from refcut_backend.cli.doctor import Check, Finding, State
from refcut_backend.cli.running_backends import require_database
from refcut_backend.clicks.forgotten_masks import ForgottenMasks
from refcut_backend.clicks.second_labels import twice_labelled
from refcut_backend.errors import RefCutError
from refcut_backend.images.address import TaskImage, image_of_task
from refcut_backend.images.cache import ImageCache, open_image_cache
from refcut_backend.images.uploads import Uploads
from refcut_backend.label_studio.client import connect, explain
from refcut_backend.label_studio.label_config import ProjectControls, problems, read_label_config
from refcut_backend.label_studio.project_ids import number_of, project_name
from refcut_backend.label_studio.tasks import AnotherProjectError, check_same_project
from refcut_backend.references.left_out import annotations_left_out
from refcut_backend.references.selection import IN_USE, Candidate
from refcut_backend.settings import Settings
from refcut_backend.wiring import Stores, open_stores

WEBHOOK_LIMIT_S = 5.0
"""How long a webhook may take. Label Studio with Redis sends it from a queue."""
LOOK_AGAIN_S = 0.1
ANNOTATIONS_NAMED = 10
UNREACHABLE = ("DI", "ER")
"""States of an ML backend in Label Studio: disconnected, error."""


class ProjectDoctor:
    """The checks of one project. Each one needs the ones before, so the first failure ends them.

    Args:
        settings: From the environment.
        project_id: The project.
        webhook_limit_s: How long a webhook may take.
    """

    def __init__(self, settings: Settings, project_id: int, webhook_limit_s: float = WEBHOOK_LIMIT_S) -> None:
        self._settings = settings
        self._project_id = project_id
        self._number = number_of(project_id)
        self._subject = f"project {project_name(project_id)}"
        self._webhook_limit_s = webhook_limit_s

    def check(self) -> Iterator[Finding]:
        """Check Label Studio, backend, webhook, label config, the image of one task, references and annotations.

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
                yield self._is(
                    "ok", f"Label Studio at {connection.label_studio} accepts the token of {user.email}"
                )
                check_same_project(api, self._project_id, connection)
                yield from self._check_backend(api, stores)
                yield from self._check_config(label_config)
                images = open_image_cache(
                    self._settings, stores.projects, stores.addresses, Uploads(stores.engine)
                )
                yield from self._check_image(api, images, label_config)
                yield from self._check_references(stores, images, read_label_config(label_config))
                yield from self._check_annotations(stores)
            except AnotherProjectError as error:
                yield self._is("note", error.message, error.hint)
            except (ApiError, httpx.HTTPError) as error:
                raise explain(error, connection.label_studio) from None

    def _check_backend(self, api: LabelStudioBase, stores: Stores) -> Iterator[Finding]:
        backends: list[Any] = list(api.ml.list(project=self._number))
        interactive = [backend for backend in backends if backend.is_interactive]
        if not interactive:
            yield self._is(
                "wrong",
                "no interactive ML backend is attached",
                "Settings > Model: connect this backend with 'Interactive preannotations' on",
            )
            return
        url, shown = str(interactive[0].url), _without_secrets(interactive[0].url)
        if interactive[0].state in UNREACHABLE:
            yield self._is(
                "wrong",
                f"clicks go to {shown}, which Label Studio does not reach",
                "start the backend; if it runs, correct the address in Settings > Model: Label Studio must reach it",
            )
        else:
            yield self._is("ok", f"clicks go to {shown}")
        if len(interactive) > 1:
            yield self._is(
                "note", "several interactive backends: Label Studio uses the first only", "remove the others"
            )
        hooks = [hook for hook in api.webhooks.list(project=str(self._number)) if hook.is_active]
        to_backend = next((hook for hook in hooks if str(hook.url).startswith(url)), None)
        if to_backend is None:
            yield self._is(
                "wrong",
                "no active webhook leads to the backend: references are updated by polling only",
                "remove the backend in Settings > Model and connect it again: Label Studio creates the webhook",
            )
            return
        yield self._check_webhook(api, stores, to_backend)

    def _check_webhook(self, api: LabelStudioBase, stores: Stores, hook: Any) -> Finding:
        """Stores the project's title unchanged, so that Label Studio sends a webhook, and waits for that."""
        events = stores.references.events
        before = events.newest(self._project_id)
        try:
            title = api.projects.get(id=self._number).title
            api.projects.update(id=self._number, title=title)
        except ApiError as error:
            if error.status_code != 403:
                raise
            return self._is(
                "note",
                "no webhook was tried: the token's user may not change the project",
                "change an annotation, and see whether the backend's log has a line with /webhook",
            )
        deadline = time.monotonic() + self._webhook_limit_s
        while events.newest(self._project_id) == before:
            if time.monotonic() > deadline:
                return self._webhook_lost(hook)
            time.sleep(LOOK_AGAIN_S)
        return self._is("ok", "a webhook that Label Studio sent arrived here")

    def _webhook_lost(self, hook: Any) -> Finding:
        what = (
            f"Label Studio sent a webhook to {_without_secrets(hook.url)}, and within {self._webhook_limit_s:g} s it did"
            " not arrive in this state folder: references are updated by polling only"
        )
        access = Access.of(self._settings)
        if access.allows(WEBHOOK, Headers({str(k): str(v) for k, v in (hook.headers or {}).items()})):
            return self._is(
                "wrong",
                what,
                "does that address lead to this backend, and is it running? Its log has a line for each /webhook",
            )
        needs_secret = access.webhook_secret is None
        return self._is(
            "wrong",
            f"{what}. The backend refuses it: it has a password, and the webhook carries neither that nor the secret",
            f"{'set REFCUT_WEBHOOK_SECRET, and ' if needs_secret else ''}{WEBHOOK_HINT}",
        )

    def _check_config(self, label_config: str) -> Iterator[Finding]:
        found = problems(read_label_config(label_config))
        for problem in found:
            yield self._is("wrong", problem, "see docs/label-studio.md, 'The label config'")
        if not found:
            yield self._is("ok", "the label config has clicks, masks and roles")
        # The editor takes any spelling of tags; Label Studio's exports do not.
        if "<KeyPointLabels" in label_config and "<PolygonLabels" in label_config:
            yield self._is(
                "note",
                "Label Studio's own COCO and YOLO exports lose the labels of this project's polygons",
                "spell KeypointLabels with a small p in the label config, or use `refcut export`",
            )

    def _check_image(self, api: LabelStudioBase, images: ImageCache, label_config: str) -> Iterator[Finding]:
        page = api.tasks.list(project=self._number, page_size=1, fields="task_only")
        task = next(iter(page.items or []), None)
        controls = read_label_config(label_config, None if task is None else dict(task.data))
        if task is None or not controls.masks:
            yield self._is("note", "no task to try", "import photographs")
            return
        address = image_of_task(dict(task.data), controls.masks[0])
        started = time.monotonic()
        image = images.open(TaskImage(self._project_id, int(task.id), address))
        taken_ms = 1000 * (time.monotonic() - started)
        yield self._is(
            "ok", f"the image of task {task.id} is read: {image.width} x {image.height} px, {taken_ms:.0f} ms"
        )

    def _check_references(
        self, stores: Stores, images: ImageCache, controls: ProjectControls
    ) -> Iterator[Finding]:
        """Reads the image of every reference in use, as a worker does, and names labels without references."""
        listed = stores.references.overview(
            self._project_id, self._settings.max_references_per_label, controls.all_region_labels
        )
        used = [one.candidate for one in listed if one.state in IN_USE]
        lost = [finding for one in used if (finding := self._lost_image(stores, images, one)) is not None]
        yield from lost
        if used and not lost:
            yield self._is("ok", f"the images of all {len(used)} references in use are read")
        without = sorted(controls.clickable_labels - {one.label for one in used})
        if without:
            yield self._is(
                "note",
                f"no reference in use: {', '.join(without)}",
                'mark a region "Reference" and submit; until then clicks of these labels count alone',
            )

    def _lost_image(self, stores: Stores, images: ImageCache, candidate: Candidate) -> Finding | None:
        stored = stores.references.load(candidate.id)
        if stored is None:
            return None
        try:
            images.open(TaskImage(self._project_id, stored.task_id, stored.image_address))
        except RefCutError as error:
            return self._is(
                "wrong",
                f"the reference of '{candidate.label}' in task {candidate.task_id}, annotation "
                f"{candidate.annotation_id}, is left out: {error.message}",
                error.hint or "restore the image, or give another reference",
            )
        return None

    def _check_annotations(self, stores: Stores) -> Iterator[Finding]:
        for one in annotations_left_out(stores.engine, self._project_id):
            yield self._is("note", f"left out: {one}", "the project's other annotations are used")
        twice = twice_labelled(stores.engine, self._project_id)
        if twice:
            named = ", ".join(str(one.annotation_id) for one in twice[:ANNOTATIONS_NAMED])
            more = ", ..." if len(twice) > ANNOTATIONS_NAMED else ""
            yield self._is(
                "note",
                f"{sum(one.masks for one in twice)} masks have the label of a click as a second one: annotations "
                f"{named}{more}",
                f"`refcut masks repair --project {project_name(self._project_id)}` takes it away; press Escape before "
                "the tick",
            )
        forgotten = ForgottenMasks(stores.engine).counts().get(self._project_id, 0)
        if forgotten:
            yield self._is(
                "note",
                f"{forgotten} masks were submitted without their tick: the annotations have only the dots",
                f"`refcut masks recover --project {project_name(self._project_id)}` puts them back",
            )

    def _is(self, state: State, what: str, advice: str = "") -> Finding:
        return Finding(self._subject, state, what, advice)


def _without_secrets(url: object) -> str:
    """An address without user, password and parameters, for the report."""
    try:
        return str(httpx.URL(str(url)).copy_with(userinfo=b"", query=None, fragment=None))
    except httpx.InvalidURL:
        return "an invalid URL"


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
