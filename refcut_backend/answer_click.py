"""From a click request to Label Studio's answer: reads the clicks, asks a worker, builds the region."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

from refcut_backend.core.clicks import ClickedObject, read_clicks
from refcut_backend.core.image_address import image_of_task
from refcut_backend.core.label_config import read_label_config
from refcut_backend.core.regions import brush_region, prediction
from refcut_backend.errors import RefCutError
from refcut_backend.jobs.click_job import ClickAnswer, ClickJob
from refcut_backend.logs import note
from refcut_backend.store.references import References

ANSWERED = "answered"
EMPTY_CONTEXT = "no_clicks"


@dataclass(frozen=True)
class ClickRequest:
    """What a click request says, whatever server took it."""

    project_id: int
    task_id: int
    task_data: dict[str, Any]
    label_config: str
    regions: list[dict[str, Any]]


@dataclass(frozen=True)
class ClickReply:
    """One entry for `results`, and why it is empty when it is (Label Studio itself shows nothing)."""

    prediction: dict[str, Any]
    reason: str | None = None


class AsksWorkers(Protocol):
    """Whatever carries a click to a worker and back."""

    def ask(self, job: ClickJob) -> ClickAnswer: ...


class ClickService:
    """Answers clicks. Never raises: a click that cannot be answered gives an empty result and a reason."""

    def __init__(
        self, queue: AsksWorkers, references: References, model_version: str, max_references: int
    ) -> None:
        self._queue = queue
        self._references = references
        self._model_version = model_version
        self._max_references = max_references

    def answer(self, request: ClickRequest) -> ClickReply:
        """The mask for the clicks of a request, as a prediction with one region."""
        try:
            clicked = read_clicks(request.regions)
            if clicked is None:
                note(outcome=EMPTY_CONTEXT)
                return self._empty(EMPTY_CONTEXT)
            note(label=clicked.label, clicks=len(clicked.clicks))
            answer, region = self._segment(request, clicked)
            note(outcome=ANSWERED, references=list(answer.reference_versions))
            return ClickReply(prediction(self._model_version, [region], answer.score))
        except RefCutError as error:
            note(outcome=error.code, problem=str(error))
            return self._empty(error.code)

    def _segment(self, request: ClickRequest, clicked: ClickedObject) -> tuple[ClickAnswer, dict[str, Any]]:
        controls = read_label_config(request.label_config)
        control = controls.mask_control(clicked.label, clicked.to_name)
        found = self._references.newest(request.project_id, clicked.label, self._max_references)
        answer = self._ask(
            ClickJob(
                project_id=request.project_id,
                task_id=request.task_id,
                image_address=image_of_task(request.task_data, control.image_field),
                label=clicked.label,
                clicks=clicked.clicks,
                reference_ids=tuple(reference.id for reference in found),
            )
        )
        if answer.error_code is not None:
            raise WorkerRefusalError(answer.error_code, answer.error_message or "")
        region = brush_region(
            clicked,
            control,
            rle=answer.rle,
            width=answer.width,
            height=answer.height,
            score=answer.score,
            reference_versions=answer.reference_versions,
        )
        return answer, region

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

    def _empty(self, reason: str) -> ClickReply:
        return ClickReply(prediction(self._model_version, [], 0.0), reason)


class WorkerRefusalError(RefCutError):
    """The worker could not answer, and said why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
