"""From a click request to Label Studio's answer: reads the clicks, asks a worker, builds the region."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Protocol

from refcut_backend.core.clicks import ClickedObject, read_clicks
from refcut_backend.core.image_address import image_of_task
from refcut_backend.core.label_config import read_label_config
from refcut_backend.core.regions import brush_region, prediction
from refcut_backend.errors import RefCutError
from refcut_backend.jobs.click_job import ClickAnswer, ClickJob
from refcut_backend.store.references import References

log = logging.getLogger("refcut.click")

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
        started = time.monotonic()
        outcome: dict[str, Any] = {"project": request.project_id, "task": request.task_id}
        try:
            clicked = read_clicks(request.regions)
            if clicked is None:
                return self._empty(EMPTY_CONTEXT)
            outcome |= {"label": clicked.label, "clicks": len(clicked.clicks)}
            answer, region = self._segment(request, clicked)
            outcome |= {"references": list(answer.reference_versions), "milliseconds": answer.milliseconds}
            log.info("answered", extra=outcome | {"total_ms": _milliseconds_since(started)})
            return ClickReply(prediction(self._model_version, [region], answer.score))
        except RefCutError as error:
            outcome |= {"reason": error.code, "problem": str(error)}
            log.warning("not answered", extra=outcome | {"total_ms": _milliseconds_since(started)})
            return self._empty(error.code)

    def _segment(self, request: ClickRequest, clicked: ClickedObject) -> tuple[ClickAnswer, dict[str, Any]]:
        controls = read_label_config(request.label_config)
        control = controls.mask_control(clicked.label, clicked.to_name)
        found = self._references.newest(request.project_id, clicked.label, self._max_references)
        answer = self._queue.ask(
            ClickJob(
                project_id=request.project_id,
                task_id=request.task_id,
                image_address=image_of_task(request.task_data, control.image_field),
                label=clicked.label,
                clicks=clicked.clicks,
                reference_ids=tuple(reference.id for reference in found),
                click_ids=clicked.click_ids,
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

    def _empty(self, reason: str) -> ClickReply:
        return ClickReply(prediction(self._model_version, [], 0.0), reason)


class WorkerRefusalError(RefCutError):
    """The worker could not answer, and said why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _milliseconds_since(started: float) -> float:
    return round(1000 * (time.monotonic() - started), 1)
