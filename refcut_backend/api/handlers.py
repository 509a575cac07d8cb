"""What each route does, independent of the web framework.

`app.py` (FastAPI) and `label_studio_ml.py` (Flask) both call these functions, so both give the same answers.
"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from refcut_backend.clicks.service import ClickReply, ClickRequest
from refcut_backend.errors import (
    ClickTimeoutError,
    LabelConfigError,
    NotConnectedError,
    RefCutError,
    UnclearProjectError,
)
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.label_config import problems, read_label_config
from refcut_backend.label_studio.payloads import PredictRequest, SetupRequest, Webhook
from refcut_backend.label_studio.project_ids import ProjectRef
from refcut_backend.label_studio.regions import prediction
from refcut_backend.logs import note
from refcut_backend.prelabeling.task import TaskToPrelabel
from refcut_backend.wiring import Wiring

log = logging.getLogger("refcut.web")

REASON_HEADER = "X-RefCut-Reason"
PRELABEL_OFF = "prelabel_off"
"""Reason code for a request without a click if pre-labelling is off."""


def follow_webhook(wiring: Wiring, webhook: Webhook) -> None:
    """Apply an event to the references and to the click log."""
    project = webhook.project
    if project is None:
        return
    try:
        project_id = wiring.projects.resolve(project.ref)
    except RefCutError as error:
        log.warning(
            "webhook not used",
            extra={"project": project.id, "reason": error.code, "problem": str(error)},
        )
        if isinstance(error, UnclearProjectError):
            compare_project(wiring, webhook)
        return
    webhook = webhook.model_copy(update={"project": project.model_copy(update={"id": project_id})})
    wiring.follower.apply(webhook)
    wiring.clicks.follow(webhook)


def compare_project(wiring: Wiring, webhook: Webhook) -> None:
    """Have the project of a webhook compared with Label Studio; every project that it may mean."""
    if webhook.project is None or wiring.reconcile is None:
        return
    try:
        for known in wiring.projects.of_number(webhook.project.id):
            wiring.reconcile.soon(known.project_id)
    except (RefCutError, SQLAlchemyError) as error:
        log.warning(
            "project not compared", extra={"project": webhook.project.id, "problem": type(error).__name__}
        )


def answer_start_training(wiring: Wiring, project: ProjectRef) -> dict[str, Any]:
    """Label Studio's button "Start training".

    Returns:
        The body of the response: the job's id, or why there is no training.
    """
    try:
        run = wiring.training.requests.button_pressed(wiring.projects.resolve(project))
    except (NotConnectedError, UnclearProjectError) as error:
        log.warning("training not started", extra={"project": project.number, "problem": str(error)})
        return {"status": error.code, "hint": str(error)}
    note(job=run.id)
    return {"status": "accepted", "job": run.id}


def answer_setup(wiring: Wiring, request: SetupRequest) -> dict[str, str]:
    """Remember address, token and label config of a project. Label Studio calls /setup whenever a page opens.

    Returns:
        The body of the response: the model version that serves the project.
    """
    note(project=request.project.number)
    connection = Connection(request.hostname.rstrip("/"), request.access_token or "")
    setup = wiring.projects.remember(
        request.project.number, connection, request.label_config, request.project.created
    )
    project_id, has_changed = setup.project_id, setup.has_changed
    note(project=project_id)
    if has_changed:
        _log_problems(project_id, request.label_config)
        wiring.follower.report_lost_labels(project_id, request.label_config)
    has_changed |= wiring.follower.follow_extra_params(project_id, request.extra_params)
    if has_changed and wiring.reconcile is not None:
        wiring.reconcile.soon(project_id)
    return {"model_version": wiring.versions.of(project_id)}


def _log_problems(project_id: int, label_config: str) -> None:
    """Logs what the project's owner should correct; only after a change, because every page calls /setup."""
    try:
        found = problems(read_label_config(label_config))
    except LabelConfigError as error:
        found = [str(error)]
    for problem in found:
        log.warning("label config", extra={"project": project_id, "problem": problem})


def prepare_task(wiring: Wiring, request: PredictRequest) -> None:
    """Prepare a task for its first click, after the response for opening it has been sent.

    Several tasks in one request are a batch: nobody is about to click on them, so none is prepared.
    """
    if len(request.tasks) != 1:
        return
    task = request.tasks[0]
    try:
        project_id = wiring.projects.resolve(request.project)
    except RefCutError as error:
        log.warning("task not prepared", extra={"task": task.id, "problem": error.code})
        return
    wiring.preloader.prepare(project_id, task.id, task.data, request.label_config)
    if wiring.next_tasks is not None:
        wiring.next_tasks.follow(project_id, task.id)


def answer_predict(wiring: Wiring, request: PredictRequest, response: Response) -> dict[str, Any]:
    """Answer /predict: a click, or a request without one (a task is opened, or many are to be predicted).

    Args:
        wiring: What answers.
        request: One task with a context for a click; one or more tasks without a context otherwise.
        response: Gets the reason why there is no mask in the header `X-RefCut-Reason`.

    Returns:
        The body of the response, `{"results": [...], "model_version": ...}`.
    """
    task, context = request.tasks[0], request.params.context
    note(project=request.project.number, task=task.id)
    try:
        project_id = wiring.projects.resolve(request.project)
    except RefCutError as error:
        # Only clicks have outcomes, which the metrics count.
        note(**{"reason" if context is None else "outcome": error.code, "problem": str(error)})
        response.headers[REASON_HEADER] = error.code
        version = wiring.versions.shared
        results = [] if context is None else [prediction(version, [], 0.0)]
        return {"results": results, "model_version": version}
    note(project=project_id)
    if context is None:
        return _answer_without_click(wiring, project_id, request, response)
    reply: ClickReply = wiring.clicks.answer(
        ClickRequest(
            project_id,
            task.id,
            task.data,
            request.label_config,
            context.result,
            task.seen_region_ids(),
        )
    )
    if wiring.next_tasks is not None:
        wiring.next_tasks.follow(project_id, task.id)
    if reply.reason is not None:
        response.headers[REASON_HEADER] = reply.reason
    return {"results": [reply.prediction], "model_version": reply.prediction["model_version"]}


def answer_too_late(wiring: Wiring, response: Response) -> dict[str, Any]:
    """Answer a click whose deadline has passed while the database, or anything else that may hang, held it up.

    Returns:
        The body of the response: no mask.
    """
    note(
        outcome=ClickTimeoutError.code,
        problem="no answer in time; where the log line has no time for the queue, the database hung before it",
    )
    response.headers[REASON_HEADER] = ClickTimeoutError.code
    version = wiring.versions.shared
    return {"results": [prediction(version, [], 0.0)], "model_version": version}


def _answer_without_click(
    wiring: Wiring, project_id: int, request: PredictRequest, response: Response
) -> dict[str, Any]:
    """No result unless pre-labelling is on: Label Studio stores each one as a prediction (contract, section 3)."""
    version = wiring.versions.of(project_id)
    if not wiring.batches.is_on:
        response.headers[REASON_HEADER] = PRELABEL_OFF
        note(reason=PRELABEL_OFF)
        return {"results": [], "model_version": version}
    reply = wiring.batches.answer(
        [TaskToPrelabel(project_id, task.id, task.data, request.label_config) for task in request.tasks]
    )
    if reply.reasons:
        response.headers[REASON_HEADER] = ", ".join(sorted(reply.reasons))
    return {"results": reply.results, "model_version": version}
