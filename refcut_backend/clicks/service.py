"""From a click request to Label Studio's answer: reads the clicks, asks a worker, builds the regions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.clicks.context import read_context
from refcut_backend.clicks.history import ClickKey, ClickMemory
from refcut_backend.clicks.options import AnswerRules
from refcut_backend.clicks.pending_masks import still_pending
from refcut_backend.clicks.session import ClickedObject, RememberedObject
from refcut_backend.errors import DatabaseFailsError, RefCutError
from refcut_backend.images.address import image_of_task
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio.label_config import Control, ProjectControls, read_label_config
from refcut_backend.label_studio.payloads import Webhook
from refcut_backend.label_studio.regions import GivenMask, mask_regions, prediction
from refcut_backend.logs import note
from refcut_backend.queue.messages import ClickAnswer, ClickJob
from refcut_backend.references.registry import References
from refcut_backend.versions.serving import ProjectVersions

ANSWERED = "answered"
EMPTY_CONTEXT = "no_clicks"
EMPTY_MASK = "empty_mask"


@dataclass(frozen=True)
class ClickRequest:
    """What a click request says, whatever server took it.

    seen_region_ids: of the regions in the task's annotations and drafts.
    """

    project_id: int
    task_id: int
    task_data: dict[str, Any]
    label_config: str
    regions: list[dict[str, Any]]
    seen_region_ids: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ClickReply:
    """One entry for `results`, and why it lacks the mask when it does (Label Studio itself shows nothing)."""

    prediction: dict[str, Any]
    reason: str | None = None


class ClickSender(Protocol):
    """Whatever carries a click to a worker and back."""

    def ask(self, job: ClickJob) -> ClickAnswer: ...


@dataclass
class _Click:
    """A request on its way: what is known of it so far. model_version: what should answer, then what did."""

    request: ClickRequest
    asked: ClickKey
    started: float
    model_version: str
    controls: ProjectControls | None = None
    objects: Sequence[RememberedObject] = ()
    clicked: ClickedObject | None = None

    def milliseconds(self) -> float:
        """Since it came."""
        return round(1000 * (time.monotonic() - self.started), 1)


class ClickService:
    """Answers clicks. Never raises: a click that cannot be answered gives an empty result and a reason."""

    def __init__(
        self,
        queue: ClickSender,
        references: References,
        versions: ProjectVersions,
        rules: AnswerRules,
        memory: ClickMemory,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._references = references
        self._versions = versions
        self._rules = rules
        self._memory = memory
        self._clock = clock

    def answer(self, request: ClickRequest) -> ClickReply:
        """The mask for the clicks of a request, and with it the masks of other labels that are still pending."""
        try:
            context = read_context(request.regions)
        except RefCutError as error:
            note(outcome=error.code, problem=str(error))
            return ClickReply(self._nothing(request), error.code)
        if context is None:
            if not request.regions:
                # Sent after a submit (contract, section 3, rule 10).
                self._memory.forget(request.project_id, request.task_id)
            note(outcome=EMPTY_CONTEXT)
            return ClickReply(self._nothing(request), EMPTY_CONTEXT)
        note(label=context.label)
        asked = ClickKey(request.project_id, request.task_id, context, self._clock())
        version = self._versions.of(request.project_id)
        return self._reply(_Click(request, asked, time.monotonic(), version))

    def follow(self, webhook: Webhook) -> None:
        """Notes which masks an annotation has taken, for the click log."""
        if webhook.project is None:
            return
        for annotation in webhook.changed_annotations():
            if not annotation.was_cancelled:
                ids = {str(region.get("id")) for region in annotation.result}
                self._memory.submitted(webhook.project.id, ids)

    def _nothing(self, request: ClickRequest) -> dict[str, Any]:
        return prediction(self._versions.of(request.project_id), [], 0.0)

    def _reply(self, click: _Click) -> ClickReply:
        try:
            with _database_explained():
                answer, regions = self._segment(click)
        except RefCutError as error:
            note(outcome=error.code, problem=str(error))
            return ClickReply(prediction(click.model_version, self._carried(click), 0.0), error.code)
        reason = None if regions else EMPTY_MASK
        note(outcome=reason or ANSWERED, references=list(answer.reference_versions))
        regions = [*regions, *self._carried(click)]
        return ClickReply(prediction(click.model_version, regions, answer.score), reason)

    def _segment(self, click: _Click) -> tuple[ClickAnswer, list[dict[str, Any]]]:
        """A worker's answer, and the regions that it makes. Raises RefCutError when there is none."""
        context = click.asked.context
        controls = click.controls = read_label_config(click.request.label_config)
        session = self._memory.session(click.asked, click.request.seen_region_ids)
        click.objects = session.objects
        is_negative_label = controls.is_negative_label(context.label, context.to_name)
        clicked = click.clicked = session.understand(context, is_negative_label=is_negative_label)
        note(label=clicked.label, clicks=len(clicked.clicks), region=clicked.region_id)
        control = controls.mask_control(clicked.label, clicked.to_name, self._rules.mask_output)
        answer = self._ask(self._job(click, clicked, control))
        if answer.error_code is not None:
            raise WorkerRefusalError(answer.error_code, answer.error_message or "")
        click.model_version = answer.model_version or click.model_version
        note(model=click.model_version)
        given = GivenMask(answer.width, answer.height, answer.rle, answer.score, answer.reference_versions)
        regions = mask_regions(clicked.region_id, clicked.label, control, given, self._rules.outlines)
        self._memory.answered(
            click.asked,
            clicked,
            given,
            model_version=click.model_version,
            milliseconds=click.milliseconds(),
        )
        return answer, regions

    def _job(self, click: _Click, clicked: ClickedObject, control: Control) -> ClickJob:
        request = click.request
        found = self._references.newest(request.project_id, clicked.label, self._rules.max_references)
        return ClickJob(
            project_id=request.project_id,
            task_id=request.task_id,
            image_address=image_of_task(request.task_data, control.image_field),
            label=clicked.label,
            clicks=clicked.clicks,
            reference_ids=tuple(reference.id for reference in found),
            click_ids=click.asked.context.ids,
            box=clicked.box,
        )

    def _carried(self, click: _Click) -> list[dict[str, Any]]:
        """Regions of the masks that are still pending, as the label config wants them now."""
        regions: list[dict[str, Any]] = []
        for known in still_pending(
            click.objects,
            click.asked.context,
            click.clicked,
            now_s=click.asked.at_s,
            pending_s=self._rules.pending_s,
        ):
            regions += self._carried_regions(click, known.clicked)
        return regions

    def _carried_regions(self, click: _Click, pending: ClickedObject) -> list[dict[str, Any]]:
        given = self._memory.mask(click.asked, pending.region_id)
        if given is None or click.controls is None:
            return []
        try:
            control = click.controls.mask_control(pending.label, pending.to_name, self._rules.mask_output)
            return mask_regions(pending.region_id, pending.label, control, given, self._rules.outlines)
        except RefCutError:
            # The label or its tag has been renamed since.
            return []

    def _ask(self, job: ClickJob) -> ClickAnswer:
        """Notes where the time went: what a worker does not account for was spent on the way to it and back."""
        asked = time.monotonic()
        spent: dict[str, float] = {}
        try:
            answer = self._queue.ask(job)
            spent = dict(answer.milliseconds)
            return answer
        finally:
            waited = 1000 * (time.monotonic() - asked) - sum(spent.values())
            note(milliseconds=spent | {"queue": round(waited, 1)})


@contextmanager
def _database_explained() -> Iterator[None]:
    """Memory forgives a database that fails; without the references a click would get another mask than was meant."""
    try:
        yield
    except SQLAlchemyError as error:
        raise DatabaseFailsError(
            f"the database fails ({type(error).__name__})",
            hint="check that its disk has room, and REFCUT_DATABASE_URL",
        ) from error


class WorkerRefusalError(RefCutError):
    """The worker could not answer, and said why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class AddressHidingSender:
    """A queue in front of another: signed links stay in the database, and Redis sees a number."""

    def __init__(self, queue: ClickSender, addresses: Addresses) -> None:
        self._queue = queue
        self._addresses = addresses

    def ask(self, job: ClickJob) -> ClickAnswer:
        """As the queue behind it."""
        hidden = self._addresses.hide(job.image_address)
        return self._queue.ask(dataclasses.replace(job, image_address=hidden))
