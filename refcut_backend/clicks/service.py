"""Answers click requests of Label Studio. Open this file to follow a click through the web process.

    read_context      regions of the request    -> ClickContext    what lies on the canvas of the clicked label
    _read_canvas      label config, history     -> Canvas          what was clicked on this task before
    _understand       Canvas                    -> ClickedObject   which object the click is about
    mask_control      ClickedObject             -> Control         the tag that takes the mask
    _ask              ClickJob                  -> ClickAnswer     a worker computes the mask
    mask_regions      ClickAnswer               -> regions         brush, polygon or rectangle for Label Studio
    ClickHistory      object and mask           -> (database)      so that further clicks can refine the object

Every step takes and returns immutable values. A step that fails ends the click with a reason. An answer replaces all
suggestions on the canvas, so every answer also has the pending masks that the request itself shows (`pending_masks`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from refcut_backend.clicks.context import ClickContext, check_shown_size, read_context
from refcut_backend.clicks.history import ClickHistory, ClickKey
from refcut_backend.clicks.options import AnswerRules
from refcut_backend.clicks.pending_masks import still_pending
from refcut_backend.clicks.session import ClickedObject, ClickSession
from refcut_backend.database.engine import database_explained
from refcut_backend.errors import RefCutError
from refcut_backend.images.address import image_of_task
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio.label_config import Control, ProjectControls, read_label_config
from refcut_backend.label_studio.payloads import Webhook
from refcut_backend.label_studio.regions import GivenMask, mask_regions, prediction
from refcut_backend.logs import note
from refcut_backend.queue.messages import ClickAnswer, ClickJob
from refcut_backend.references.registry import References, ReferenceVersion
from refcut_backend.versions.serving import ProjectVersions

ANSWERED = "answered"
EMPTY_CONTEXT = "no_clicks"
EMPTY_MASK = "empty_mask"


@dataclass(frozen=True)
class ClickRequest:
    """A click request, independent of the server that took it.

    Attributes:
        project_id: Label Studio's project.
        task_id: Label Studio's task.
        task_data: The task's data; it holds the image's URL.
        label_config: The project's label config (XML).
        regions: What lies on the canvas of the clicked label (`params.context.result`).
        seen_region_ids: Ids of the regions in the task's annotations and drafts; None if the request does not tell.
    """

    project_id: int
    task_id: int
    task_data: dict[str, Any]
    label_config: str
    regions: list[dict[str, Any]]
    seen_region_ids: frozenset[str] | None = None


@dataclass(frozen=True)
class ClickReply:
    """The answer to a click request.

    Attributes:
        prediction: One entry for Label Studio's `results`.
        reason: Reason code if the clicked object has no mask; None if it has. Label Studio itself shows no reason.
    """

    prediction: dict[str, Any]
    reason: str | None = None


@dataclass(frozen=True)
class Canvas:
    """What is known about a task when a click comes in.

    Attributes:
        key: The click.
        controls: The label config's tags, as they are now.
        session: The task's earlier clicks.
    """

    key: ClickKey
    controls: ProjectControls
    session: ClickSession

    @property
    def context(self) -> ClickContext:
        """Dots or boxes of the clicked label."""
        return self.key.context


class ClickSender(Protocol):
    """Sends a click to a worker and waits for the answer: `queue.click_queue.ClickQueue`."""

    def ask(self, job: ClickJob) -> ClickAnswer:
        """Return the worker's answer. Raise RefCutError if no worker answers."""


class ClickService:
    """Answers clicks. Never raises: a click without an answer gets an empty result and a reason.

    Args:
        queue: Sends clicks to workers.
        references: Masks that say what a label means.
        versions: Names the model version that serves a project.
        rules: How answers are built.
        memory: Earlier clicks, shared by all web processes.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        queue: ClickSender,
        references: References,
        versions: ProjectVersions,
        rules: AnswerRules,
        memory: ClickHistory,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._references = references
        self._versions = versions
        self._rules = rules
        self._memory = memory
        self._clock = clock

    def answer(self, request: ClickRequest) -> ClickReply:
        """Return the mask for the clicks of a request, together with the pending masks that the request shows."""
        started = time.monotonic()
        version = self._versions.of(request.project_id)
        try:
            context = read_context(request.regions)
            if context is None:
                return self._without_clicks(request, version)
            note(label=context.label)
            key = ClickKey(request.project_id, request.task_id, context, self._clock())
            canvas = self._read_canvas(request, key)
        except RefCutError as error:
            return _refusal(error, version, [])
        try:
            clicked = _understand(canvas)
        except RefCutError as error:
            return _refusal(error, version, self._pending_regions(canvas, None))
        try:
            # Without its references the click would get another mask than the one meant.
            with database_explained():
                control = self._mask_control(canvas, clicked)
                found = self._references.newest(request.project_id, clicked.label, self._rules.max_references)
                answer = self._ask(self._job(request, canvas, clicked, control, found))
                self._references.note_use(found, answer.reference_versions, answer.references_left_out)
            check_shown_size(request.regions, answer.width, answer.height)
            given = _given_mask(answer)
            clicked = replace(clicked, extent=answer.extent)
            regions = mask_regions(clicked.region_id, clicked.label, control, given, self._rules.outlines)
        except RefCutError as error:
            return _refusal(error, version, self._pending_regions(canvas, clicked))
        version = answer.model_version or version
        self._memory.record(
            key,
            clicked,
            given,
            model_version=version,
            milliseconds=round(1000 * (time.monotonic() - started), 1),
        )
        reason = None if regions else EMPTY_MASK
        note(model=version, outcome=reason or ANSWERED, references=list(answer.reference_versions))
        if given.references_left_out:
            note(references_left_out=list(given.references_left_out))
        regions = [*regions, *self._pending_regions(canvas, clicked)]
        return ClickReply(prediction(version, regions, answer.score), reason)

    def follow(self, webhook: Webhook) -> None:
        """Note which masks an annotation now contains, and which it lacks although it has their dots."""
        if webhook.project is None:
            return
        project_id = webhook.project.id
        for annotation in webhook.changed_annotations():
            if not annotation.was_cancelled:
                ids = {str(item.get("id")) for item in annotation.result if isinstance(item, dict)}
                self._memory.mark_accepted(project_id, ids)
        for annotation, task in webhook.states():
            if not annotation.was_cancelled:
                self._memory.follow(project_id, task.id, annotation)
        if webhook.annotations:
            self._memory.follow_removal(project_id, [annotation.id for annotation in webhook.annotations])

    def _without_clicks(self, request: ClickRequest, version: str) -> ClickReply:
        """An empty request follows a submit (contract, section 3, rule 10): the task's objects are done."""
        if not request.regions:
            self._memory.forget(request.project_id, request.task_id)
        note(outcome=EMPTY_CONTEXT)
        return ClickReply(prediction(version, [], 0.0), EMPTY_CONTEXT)

    def _read_canvas(self, request: ClickRequest, key: ClickKey) -> Canvas:
        controls = read_label_config(request.label_config, request.task_data)
        return Canvas(key, controls, self._memory.session(key, request.seen_region_ids))

    def _mask_control(self, canvas: Canvas, one: ClickedObject) -> Control:
        return canvas.controls.mask_control(one.label, one.to_name, self._rules.mask_output)

    def _job(
        self,
        request: ClickRequest,
        canvas: Canvas,
        clicked: ClickedObject,
        control: Control,
        found: Sequence[ReferenceVersion],
    ) -> ClickJob:
        return ClickJob(
            project_id=request.project_id,
            task_id=request.task_id,
            image_address=image_of_task(request.task_data, control),
            label=clicked.label,
            clicks=clicked.clicks,
            reference_ids=tuple(reference.id for reference in found),
            click_ids=canvas.context.ids,
            box=clicked.box,
            extent=clicked.extent,
            pieces=self._references.rules.pieces(request.project_id, clicked.label),
        )

    def _ask(self, job: ClickJob) -> ClickAnswer:
        """Logs where the time went: the part that no worker accounts for was spent in the queue."""
        sent_at = time.monotonic()
        spent: dict[str, float] = {}
        try:
            answer = self._queue.ask(job)
            spent = dict(answer.milliseconds)
        finally:
            waited = 1000 * (time.monotonic() - sent_at) - sum(spent.values())
            note(milliseconds=spent | {"queue": round(waited, 1)})
        if answer.error_code is not None:
            raise WorkerRefusalError(answer.error_code, answer.error_message or "")
        return answer

    def _pending_regions(self, canvas: Canvas, clicked: ClickedObject | None) -> list[dict[str, Any]]:
        """Regions of the masks that are still pending, as the label config wants them now."""
        regions: list[dict[str, Any]] = []
        for known in still_pending(
            canvas.session.objects,
            canvas.context,
            clicked,
            now_s=canvas.key.at_s,
            pending_s=self._rules.pending_s,
        ):
            regions += self._regions_again(canvas, known.clicked)
        return regions

    def _regions_again(self, canvas: Canvas, pending: ClickedObject) -> list[dict[str, Any]]:
        """Empty if the mask is gone, or its label or tag has been renamed since."""
        given = self._memory.mask(canvas.key, pending.region_id)
        if given is None:
            return []
        try:
            control = self._mask_control(canvas, pending)
            return mask_regions(pending.region_id, pending.label, control, given, self._rules.outlines)
        except RefCutError:
            return []


def _understand(canvas: Canvas) -> ClickedObject:
    context = canvas.context
    clicked = canvas.session.understand(
        context,
        is_negative_label=canvas.controls.is_negative_label(context.label, context.to_name),
        step=canvas.controls.step_of(context.label, context.to_name),
    )
    note(label=clicked.label, clicks=len(clicked.clicks), region=clicked.region_id)
    if clicked.extent:
        note(extent=clicked.extent)
    return clicked


def _given_mask(answer: ClickAnswer) -> GivenMask:
    left_out = tuple(map(str, answer.references_left_out))
    return GivenMask(
        answer.width, answer.height, answer.rle, answer.score, answer.reference_versions, left_out
    )


def _refusal(error: RefCutError, version: str, pending: Sequence[dict[str, Any]]) -> ClickReply:
    note(outcome=error.code, problem=str(error))
    return ClickReply(prediction(version, list(pending), 0.0), error.code)


class WorkerRefusalError(RefCutError):
    """The worker could not answer the click; it sent the reason.

    Args:
        code: The worker's reason code.
        message: Its message, hint included.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class AddressHidingSender:
    """A `ClickSender` in front of another: signed URLs stay in the database, and Redis gets a number instead.

    Args:
        queue: Sends the click on.
        addresses: Stores the URLs.
    """

    def __init__(self, queue: ClickSender, addresses: Addresses) -> None:
        self._queue = queue
        self._addresses = addresses

    def ask(self, job: ClickJob) -> ClickAnswer:
        """Send the click with its image URL replaced, and return the answer."""
        hidden = self._addresses.hide(job.image_address)
        return self._queue.ask(replace(job, image_address=hidden))
