"""What each route does, independent of the web framework.

`app.py` (FastAPI) and `label_studio_ml.py` (Flask) both call these functions, so both give the same answers.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.responses import Response

from refcut_backend.clicks.service import ClickReply, ClickRequest
from refcut_backend.errors import LabelConfigError, NotConnectedError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.label_config import problems, read_label_config
from refcut_backend.label_studio.payloads import PredictRequest, SetupRequest, Webhook
from refcut_backend.logs import note
from refcut_backend.prelabeling.task import TaskToPrelabel
from refcut_backend.wiring import Wiring

log = logging.getLogger("refcut.web")

REASON_HEADER = "X-RefCut-Reason"


def follow_webhook(wiring: Wiring, webhook: Webhook) -> None:
    """Apply an event to the references and to the click log."""
    wiring.follower.apply(webhook)
    wiring.clicks.follow(webhook)


def answer_start_training(wiring: Wiring, project_id: int) -> dict[str, Any]:
    """Label Studio's button "Start training".

    Returns:
        The body of the response: the job's id, or why there is no training.
    """
    try:
        run = wiring.training.requests.button_pressed(project_id)
    except NotConnectedError as error:
        log.warning("training not started", extra={"project": project_id, "problem": str(error)})
        return {"status": error.code, "hint": str(error)}
    note(job=run.id)
    return {"status": "accepted", "job": run.id}


def answer_setup(wiring: Wiring, request: SetupRequest) -> dict[str, str]:
    """Remember address, token and label config of a project. Label Studio calls /setup whenever a page opens.

    Returns:
        The body of the response: the model version that serves the project.
    """
    note(project=request.project)
    connection = Connection(request.hostname.rstrip("/"), request.access_token or "")
    has_changed = wiring.projects.remember(
        request.project, connection, request.label_config, request.created_at
    )
    if has_changed:
        _log_problems(request)
        wiring.follower.report_lost_labels(request.project, request.label_config)
    has_changed |= wiring.follower.follow_extra_params(request.project, request.extra_params)
    if has_changed and wiring.reconcile is not None:
        wiring.reconcile.soon(request.project)
    return {"model_version": wiring.versions.of(request.project)}


def _log_problems(request: SetupRequest) -> None:
    """Logs what the project's owner should correct; only after a change, because every page calls /setup."""
    try:
        found = problems(read_label_config(request.label_config))
    except LabelConfigError as error:
        found = [str(error)]
    for problem in found:
        log.warning("label config", extra={"project": request.project, "problem": problem})


def prepare_task(wiring: Wiring, request: PredictRequest) -> None:
    """Prepare a task for its first click, after the response for opening it has been sent.

    Several tasks in one request are a batch: nobody is about to click on them, so none is prepared.
    """
    if len(request.tasks) == 1:
        task = request.tasks[0]
        wiring.preloader.task_opened(request.project, task.id, task.data, request.label_config)


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
    note(project=request.project, task=task.id)
    if context is None:
        return _answer_without_click(wiring, request, response)
    reply: ClickReply = wiring.clicks.answer(
        ClickRequest(
            request.project,
            task.id,
            task.data,
            request.label_config,
            context.result,
            task.seen_region_ids(),
        )
    )
    if reply.reason is not None:
        response.headers[REASON_HEADER] = reply.reason
    return {"results": [reply.prediction], "model_version": reply.prediction["model_version"]}


def _answer_without_click(wiring: Wiring, request: PredictRequest, response: Response) -> dict[str, Any]:
    """No result unless pre-labelling is on: Label Studio stores each one as a prediction (contract, section 3)."""
    version = wiring.versions.of(request.project)
    if not wiring.batches.is_on:
        return {"results": [], "model_version": version}
    reply = wiring.batches.answer(
        [TaskToPrelabel(request.project, task.id, task.data, request.label_config) for task in request.tasks]
    )
    if reply.reasons:
        response.headers[REASON_HEADER] = ", ".join(sorted(reply.reasons))
    return {"results": reply.results, "model_version": version}
