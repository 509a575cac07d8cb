"""RefCut inside label-studio-ml: a model class for `label-studio-ml start` and for `init_app`.

`refcut serve` offers more: a password, metrics, webhooks without delay. The class works with label-studio-ml 1.0.9 and
with its GitHub version, which differ in almost everything (contract, section 5). 1.0.9 has one model object for all
projects, the GitHub version makes one per request. The object therefore holds no state: project and label config are
read from the request, and everything that lasts is in the wiring.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import cache
from typing import Any, TypeVar

import flask
from label_studio_ml.model import LabelStudioMLBase
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from refcut_backend.api.handlers import (
    REASON_HEADER,
    answer_predict,
    answer_setup,
    answer_start_training,
    follow_webhook,
    prepare_task,
)
from refcut_backend.errors import BadRequestError, ConfigError, RefCutError
from refcut_backend.label_studio.payloads import PredictRequest, Project, SetupRequest, Webhook
from refcut_backend.logs import collect_fields
from refcut_backend.queue.redis import connect_redis
from refcut_backend.settings import read_settings
from refcut_backend.training.requests import START_TRAINING
from refcut_backend.wiring import Wiring, check_settings, wire_backend

log = logging.getLogger("refcut.request")

P = TypeVar("P", bound=BaseModel)


class _OfProject(BaseModel):
    project: Project


class RefCutModel(LabelStudioMLBase):  # type: ignore[misc]
    """The model class for label-studio-ml; it holds no state, so one object or many make no difference."""

    TRAIN_EVENTS = (
        "ANNOTATION_CREATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_DELETED",
        "TASKS_DELETED",
        "PROJECT_UPDATED",
        "START_TRAINING",
    )
    """Events that `fit` is called for; the defaults of both versions lack some that Label Studio sends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Remember the project of a /setup request. Cheap, because it happens with every /setup."""
        super().__init__(*args, **kwargs)
        if flask.has_request_context() and flask.request.path == "/setup":
            _replace_webhook_route()
            _start_reconciling(os.getpid())
            answer_setup(wiring(), _read(SetupRequest, flask.request.get_json()))

    def setup(self) -> None:
        """Called only by the GitHub version, which reports this value to Label Studio."""
        self.set("model_version", self.model_version)

    @property
    def model_version(self) -> str:
        """The model version that serves the project of the current request."""
        body = flask.request.get_json(silent=True) if flask.has_request_context() else None
        try:
            project = _OfProject.model_validate(body).project
            return wiring().versions.of(wiring().projects.resolve(project))
        except (ValidationError, RefCutError):
            return wiring().versions.shared

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **_kwargs: Any
    ) -> list[dict[str, Any]]:
        """Answer a click with a prediction; a task that is being opened gets none unless pre-labelling is on.

        Args:
            tasks: The tasks of the request; a click has one.
            context: The click, as Label Studio sends it; None without a click.

        Returns:
            One prediction per task, in Label Studio's format.
        """
        request = _read(PredictRequest, self._request(tasks, context))
        if request.params.context is None:
            threading.Thread(target=prepare_task, args=(wiring(), request)).start()
        reply = Response()
        with collect_fields() as fields:
            answer = answer_predict(wiring(), request, reply)
            log.info("request", extra=fields)
        if flask.has_request_context() and REASON_HEADER in reply.headers:
            flask.after_this_request(lambda response: _with_reason(response, reply.headers[REASON_HEADER]))
        predictions: list[dict[str, Any]] = answer["results"]
        return predictions

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Apply an event.

        Label Studio waits one second for a webhook, so the work is done on a thread.

        Args:
            *args: (event, data) in the GitHub version, (tasks,) in 1.0.9.
            **kwargs: event and data in 1.0.9.

        Returns:
            An empty result: nothing is trained here.
        """
        event = kwargs["event"] if "event" in kwargs else args[0]
        data = kwargs["data"] if "data" in kwargs else args[1]
        _follow(_read(Webhook, {**data, "action": event}))
        return {}

    def _request(self, tasks: list[dict[str, Any]], context: dict[str, Any] | None) -> dict[str, Any]:
        """Rebuilds the body of /predict; the GitHub version takes the context out of it before `predict`."""
        body = flask.request.get_json() if flask.has_request_context() else {}
        return {
            "tasks": tasks,
            "project": body["project"] if "project" in body else tasks[0].get("project"),
            "label_config": body.get("label_config") or self.label_config or "",
            "params": {"context": context or None},
        }


def wiring() -> Wiring:
    """The wiring of this process. Raises ConfigError if the settings do not fit label-studio-ml."""
    return _wiring_of(os.getpid())


@cache
def _wiring_of(_process: int) -> Wiring:
    """One wiring per process id: connections do not survive a fork, and both versions fork servers or jobs."""
    settings = check_settings(read_settings())
    if settings.basic_auth_user is not None or settings.webhook_secret is not None:
        raise ConfigError(
            "REFCUT_BASIC_AUTH_* and REFCUT_WEBHOOK_SECRET work with `refcut serve` only",
            hint="label-studio-ml 1.0.9 has no password; its GitHub version reads BASIC_AUTH_USER and BASIC_AUTH_PASS",
        )
    if settings.redis_url is None:
        raise ConfigError("REFCUT_REDIS_URL is not set", hint="set it, and start a `refcut worker` on it")
    return wire_backend(settings, connect_redis(settings.redis_url))


def _replace_webhook_route() -> None:
    """Answers /webhook instead of label-studio-ml from now on.

    1.0.9 starts a process per event; the GitHub version knows neither deleted annotations nor deleted tasks. Label Studio
    calls /setup before anything happens in a project; an event that comes earlier is applied by `fit`.
    """
    flask.current_app.view_functions["webhook"] = _webhook


@cache
def _start_reconciling(_process: int) -> None:
    """Starts the thread that finds references whose webhooks were lost; a lease lets only one process do so."""
    reconcile = wiring().reconcile
    if reconcile is not None:
        reconcile.start()


def _webhook() -> flask.Response:
    webhook = _read(Webhook, flask.request.get_json())
    if webhook.action == START_TRAINING and webhook.project is not None:
        return flask.jsonify(answer_start_training(wiring(), webhook.project.ref))
    _follow(webhook)
    return flask.jsonify({"status": "accepted"})


def _follow(webhook: Webhook) -> None:
    threading.Thread(target=follow_webhook, args=(wiring(), webhook)).start()


def _with_reason(response: flask.Response, reason: str) -> flask.Response:
    response.headers[REASON_HEADER] = reason
    return response


def _read(model: type[P], data: Any) -> P:
    """Raises BadRequestError with the field and never its value: label-studio-ml sends tracebacks to the caller."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
    raise BadRequestError("; ".join(faults))
