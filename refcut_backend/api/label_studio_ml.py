"""RefCut inside label-studio-ml: a model class for `label-studio-ml start` and for `init_app`.

For those who run all their backends that way; `refcut serve` does more (password, metrics, webhooks in time). Works with
label-studio-ml 1.0.9 and with its GitHub version, which share little but names (contract, section 5): 1.0.9 has one model
object for all projects, GitHub's makes one a request. So nothing is kept in the object: which project a request is about
and which label config it has is read from the request itself, and everything that lasts is in the services.
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
from refcut_backend.errors import BadRequestError, ConfigError
from refcut_backend.label_studio.payloads import PredictRequest, ProjectId, SetupRequest, Webhook
from refcut_backend.logs import gather_facts
from refcut_backend.queue.redis import connect_redis
from refcut_backend.settings import read_settings
from refcut_backend.training.requests import START_TRAINING
from refcut_backend.wiring import Wiring, check_settings, wire_backend

log = logging.getLogger("refcut.request")

P = TypeVar("P", bound=BaseModel)


class _OfProject(BaseModel):
    project: ProjectId


class RefCutModel(LabelStudioMLBase):  # type: ignore[misc]
    """One for every request or one for all: it makes no difference."""

    TRAIN_EVENTS = (
        "ANNOTATION_CREATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_DELETED",
        "TASKS_DELETED",
        "PROJECT_UPDATED",
        "START_TRAINING",
    )
    """What `fit` is called for; both versions lack some that Label Studio sends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Cheap, since it happens with every /setup; that one is remembered."""
        super().__init__(*args, **kwargs)
        if flask.has_request_context() and flask.request.path == "/setup":
            _take_webhooks()
            _compare_from_now_on(os.getpid())
            answer_setup(wiring(), _read(SetupRequest, flask.request.get_json()))

    def setup(self) -> None:
        """Called by the GitHub version alone, which tells Label Studio what is stored here."""
        self.set("model_version", self.model_version)

    @property
    def model_version(self) -> str:
        """The weights that serve the project that is asked about."""
        said = flask.request.get_json(silent=True) if flask.has_request_context() else None
        try:
            return wiring().versions.of(_OfProject.model_validate(said).project)
        except ValidationError:
            return wiring().versions.shared

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **_kwargs: Any
    ) -> list[dict[str, Any]]:
        """A prediction with the mask for a click; nothing for a task that is being opened."""
        request = _read(PredictRequest, self._request(tasks, context))
        if request.params.context is None:
            threading.Thread(target=prepare_task, args=(wiring(), request)).start()
        reply = Response()
        with gather_facts() as facts:
            answer = answer_predict(wiring(), request, reply)
            log.info("request", extra=facts)
        if flask.has_request_context() and REASON_HEADER in reply.headers:
            flask.after_this_request(lambda response: _with_reason(response, reply.headers[REASON_HEADER]))
        predictions: list[dict[str, Any]] = answer["results"]
        return predictions

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """An event: (event, data) in the GitHub version, (tasks, event=, data=) in 1.0.9.

        Label Studio waits a second for a webhook, so the work is done on a thread, which the process outlives.
        """
        event = kwargs["event"] if "event" in kwargs else args[0]
        data = kwargs["data"] if "data" in kwargs else args[1]
        _follow(_read(Webhook, {**data, "action": event}))
        return {}

    def _request(self, tasks: list[dict[str, Any]], context: dict[str, Any] | None) -> dict[str, Any]:
        """As /predict carries it. The GitHub version takes the context out of the body before it comes here."""
        said = flask.request.get_json() if flask.has_request_context() else {}
        return {
            "tasks": tasks,
            "project": said["project"] if "project" in said else tasks[0].get("project"),
            "label_config": said.get("label_config") or self.label_config or "",
            "params": {"context": context or None},
        }


def wiring() -> Wiring:
    """The services of this process. Raises ConfigError."""
    return _wiring_of(os.getpid())


@cache
def _wiring_of(_process: int) -> Wiring:
    """Connections do not survive a fork, and both versions fork servers or jobs."""
    settings = check_settings(read_settings())
    if settings.basic_auth_user is not None or settings.webhook_secret is not None:
        raise ConfigError(
            "REFCUT_BASIC_AUTH_* and REFCUT_WEBHOOK_SECRET work with `refcut serve` only",
            hint="label-studio-ml 1.0.9 knows no password; its GitHub version takes BASIC_AUTH_USER and BASIC_AUTH_PASS",
        )
    if settings.redis_url is None:
        raise ConfigError("no Redis is named", hint="set REFCUT_REDIS_URL, and start a `refcut worker` on it")
    return wire_backend(settings, connect_redis(settings.redis_url))


def _take_webhooks() -> None:
    """Answers /webhook instead of label-studio-ml from now on.

    1.0.9 starts a process for each event, the GitHub version knows neither deleted annotations nor tasks. Label Studio
    calls /setup before anything happens in a project; should an event come first, `fit` follows it.
    """
    flask.current_app.view_functions["webhook"] = _webhook


@cache
def _compare_from_now_on(_process: int) -> None:
    """Finds references whose webhooks were lost, and those that the owner named: also a server that somebody else runs
    must look for itself. One process among several does so."""
    reconcile = wiring().reconcile
    if reconcile is not None:
        reconcile.start()


def _webhook() -> flask.Response:
    webhook = _read(Webhook, flask.request.get_json())
    if webhook.action == START_TRAINING and webhook.project is not None:
        return flask.jsonify(answer_start_training(wiring(), webhook.project.id))
    _follow(webhook)
    return flask.jsonify({"status": "accepted"})


def _follow(webhook: Webhook) -> None:
    threading.Thread(target=follow_webhook, args=(wiring(), webhook)).start()


def _with_reason(response: flask.Response, reason: str) -> flask.Response:
    response.headers[REASON_HEADER] = reason
    return response


def _read(model: type[P], data: Any) -> P:
    """Raises BadRequestError that names the field and not its value: label-studio-ml sends tracebacks to the caller."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
    raise BadRequestError("; ".join(faults))
