"""The routes of Label Studio and of operators as OpenAPI 3.1, for /openapi.json and the page /docs.

The bodies are those of `label_studio/payloads.py`; summaries, answers and examples stand here, beside each other. A test
compares them with the routes that exist. The routes behind the pages are for the pages alone and are not described.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from refcut_backend import __version__
from refcut_backend.api.auth import OPEN_TO_ALL, SECRET_HEADER, WEBHOOK
from refcut_backend.api.handlers import REASON_HEADER
from refcut_backend.label_studio.payloads import JobStatusRequest, PredictRequest, SetupRequest, Webhook

LABEL_STUDIO, OPERATIONS = "Label Studio", "Operations"
TAGS = {
    LABEL_STUDIO: "What Label Studio calls. It needs no other program, but any program may do the same.",
    OPERATIONS: "For probes, Prometheus and scripts.",
}


@dataclass(frozen=True)
class Answer:
    """An answer of a route.

    Attributes:
        status: The HTTP status.
        meaning: When it is given.
        example: A body as JSON, or as text if `media_type` is no JSON.
        media_type: Of the body.
        headers: Name to meaning of headers that are set besides those of every answer.
    """

    status: int
    meaning: str
    example: object = None
    media_type: str = "application/json"
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Operation:
    """A route with one method.

    Attributes:
        body: The form of the request's body; None for a request without one.
        example: A body.
    """

    method: str
    path: str
    tag: str
    summary: str
    description: str
    answers: tuple[Answer, ...]
    body: type[BaseModel] | None = None
    example: object = None


VERSION = "refcut-s14"
CLICK = {
    "id": "a1",
    "type": "keypointlabels",
    "from_name": "click",
    "to_name": "image",
    "original_width": 1920,
    "original_height": 1080,
    "is_positive": True,
    "value": {"x": 49.0, "y": 65.0, "width": 0.4, "keypointlabels": ["Wheel"]},
}
MASK = {
    "id": "a1",
    "type": "brushlabels",
    "from_name": "mask",
    "to_name": "image",
    "original_width": 1920,
    "original_height": 1080,
    "value": {"format": "rle", "rle": [0, 0, 3], "brushlabels": ["Wheel"]},
}
REASON = {REASON_HEADER: "Why there is no mask; `refcut reasons` lists the codes."}
BAD_REQUEST = Answer(
    400,
    "The body does not have this form. Values are not repeated, because they may be secrets.",
    {"error": "bad_request", "faults": [{"field": "tasks", "fault": "Field required"}]},
)
TOO_LARGE = Answer(
    413, "The body is larger than `REFCUT_REQUEST_MAX_BYTES`.", {"error": "too_large", "hint": "..."}
)
NOT_JSON = Answer(
    415,
    "The request is not JSON.",
    {"error": "not_json", "hint": "send JSON with the header Content-Type: application/json"},
)
DATABASE = Answer(
    503, "The database is locked, full or restarting.", {"error": "database", "hint": "try again; ..."}
)
UNAUTHORIZED = Answer(
    401,
    "The password, or the secret of webhooks, is missing or wrong.",
    {"error": "unauthorized", "hint": "..."},
)
TOO_MANY = Answer(
    429,
    "Too many wrong passwords came from this address.",
    {"error": "too_many_attempts", "message": "Too many attempts", "hint": "..."},
    headers={"Retry-After": "Seconds to wait."},
)
WITH_BODY = (BAD_REQUEST, TOO_LARGE, NOT_JSON)

OPERATIONS_LIST = (
    Operation(
        "GET",
        "/health",
        LABEL_STUDIO,
        "Whether the server answers",
        "Label Studio asks before it connects. Redis, database and workers are not looked at: `/readyz` does that.",
        (Answer(200, "It answers.", {"status": "UP", "model_class": "RefCut"}),),
    ),
    Operation(
        "POST",
        "/setup",
        LABEL_STUDIO,
        "Make a project known",
        "Label Studio sends it on connecting, and for every page that shows the project. Address, token and label config "
        "are kept; a change has the project's references compared with Label Studio.",
        (Answer(200, "The model that serves the project.", {"model_version": VERSION}), *WITH_BODY, DATABASE),
        SetupRequest,
        {
            "project": "7.1795342440",
            "schema": "<View>...</View>",
            "hostname": "http://localhost:8080",
            "access_token": "...",
        },
    ),
    Operation(
        "POST",
        "/predict",
        LABEL_STUDIO,
        "A click, or tasks without one",
        "With `params.context` it is a click: the regions of the context are the dots and boxes of the clicked label, "
        "and the answer holds the mask. Without a context a task was opened, which is prepared for its first click, or "
        "many tasks are to be predicted, which needs pre-labelling to be on. A click ends within "
        "`REFCUT_CLICK_TIMEOUT_S`.",
        (
            Answer(
                200,
                "One result per task; a result without regions for a click that gave no mask.",
                {
                    "results": [{"model_version": VERSION, "score": 0.91, "result": [MASK]}],
                    "model_version": VERSION,
                },
                headers=REASON,
            ),
            *WITH_BODY,
        ),
        PredictRequest,
        {
            "tasks": [{"id": 12, "data": {"image": "/data/upload/1/car.jpg"}}],
            "project": "7.1795342440",
            "label_config": "<View>...</View>",
            "params": {"context": {"result": [CLICK]}},
        },
    ),
    Operation(
        "POST",
        WEBHOOK,
        LABEL_STUDIO,
        "An event of Label Studio",
        "References follow annotations by these events. The answer comes before the work. The action `START_TRAINING` "
        "asks for a training at once.",
        (Answer(200, "The event is accepted.", {"status": "accepted"}), *WITH_BODY, DATABASE),
        Webhook,
        {"action": "TASKS_DELETED", "project": {"id": 7}, "tasks": [{"id": 12}]},
    ),
    Operation(
        "GET",
        "/versions",
        LABEL_STUDIO,
        "Versions of the model",
        "The shared model, and the versions that projects have learned.",
        (Answer(200, "All versions.", {"versions": [VERSION]}),),
    ),
    Operation(
        "POST",
        "/versions",
        LABEL_STUDIO,
        "Versions of the model",
        "The same as GET; the body is not read.",
        (Answer(200, "All versions.", {"versions": [VERSION]}), NOT_JSON),
    ),
    Operation(
        "POST",
        "/job_status",
        LABEL_STUDIO,
        "State of a training",
        "Label Studio asks for the training that its button started.",
        (
            Answer(
                200,
                "The state.",
                {"job_status": "started", "error": "", "stage": "training", "step": 120, "steps": 400},
            ),
            Answer(410, "There is no such training.", {"error": "no such job"}),
            *WITH_BODY,
            DATABASE,
        ),
        JobStatusRequest,
        {"job": "2f1c9a7e"},
    ),
    Operation(
        "GET",
        "/livez",
        OPERATIONS,
        "Whether the process lives",
        "For the liveness probe of a container. It needs no password.",
        (Answer(200, "It lives.", {"status": "alive"}),),
    ),
    Operation(
        "GET",
        "/readyz",
        OPERATIONS,
        "Whether clicks can be answered",
        "For the readiness probe of a container. It needs no password.",
        (
            Answer(
                200, "A worker and the database are there.", {"redis": "up", "database": "up", "workers": 2}
            ),
            Answer(503, "Something is missing.", {"redis": "down", "database": "up", "workers": 0}),
        ),
    ),
    Operation(
        "GET",
        "/metrics",
        OPERATIONS,
        "Metrics for Prometheus",
        "Clicks by outcome, times by phase, queue, workers and trainings.",
        (
            Answer(
                200,
                "Prometheus' text format.",
                'refcut_clicks_total{outcome="answered"} 12.0',
                CONTENT_TYPE_LATEST,
            ),
        ),
    ),
    Operation(
        "GET",
        "/status",
        OPERATIONS,
        "State as JSON",
        "Queue, trainings, versions and the clicks of this process. A browser gets a page, by the header `Accept`.",
        (
            Answer(
                200,
                "The state.",
                {"version": __version__, "model_version": VERSION, "queue": {"redis": "up", "waiting": 0}},
            ),
        ),
    ),
)


def described() -> Iterator[tuple[str, str]]:
    """Method and path of each route that is described."""
    return ((operation.method, operation.path) for operation in OPERATIONS_LIST)


@cache
def document() -> dict[str, Any]:
    """The document. Callers must not change it."""
    bodies = [operation.body for operation in OPERATIONS_LIST if operation.body is not None]
    schemas, definitions = models_json_schema(
        [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
    )
    references = {body: schemas[body, "validation"] for body in bodies}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS_LIST:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "RefCut for Label Studio",
            "version": __version__,
            "description": "Answers every request with JSON. The header `X-RefCut-Request` names the log line.",
        },
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {name: _schema(one) for name, one in definitions.get("$defs", {}).items()},
            "securitySchemes": {
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "`REFCUT_BASIC_AUTH_USER` and `REFCUT_BASIC_AUTH_PASSWORD`, if they are set.",
                },
                "secret": {
                    "type": "apiKey",
                    "in": "header",
                    "name": SECRET_HEADER,
                    "description": "`REFCUT_WEBHOOK_SECRET`, if it is set.",
                },
            },
        },
    }


def _operation(
    operation: Operation, references: Mapping[type[BaseModel], Mapping[str, Any]]
) -> dict[str, Any]:
    is_open = operation.path in OPEN_TO_ALL
    answers = operation.answers if is_open else (*operation.answers, UNAUTHORIZED, TOO_MANY)
    found: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "operationId": f"{operation.method.lower()}_{operation.path.strip('/')}",
        "security": [] if is_open else [{"password": []}],
        "responses": {
            str(answer.status): _response(answer) for answer in sorted(answers, key=lambda one: one.status)
        },
    }
    if operation.path == WEBHOOK:
        found["security"].append({"secret": []})
    if operation.body is not None:
        content = {"schema": references[operation.body], "example": operation.example}
        found["requestBody"] = {"required": True, "content": {"application/json": content}}
    return found


def _response(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": answer.meaning,
        "content": {answer.media_type: {"example": answer.example}},
    }
    if answer.headers:
        found["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    return found


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose fields have the descriptions that stand in the docstring of its class."""
    text, _, attributes = schema.get("description", "").partition("\n\nAttributes:\n")
    name = ""
    meanings: dict[str, str] = {}
    for line in attributes.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            name, _, meaning = line.strip().partition(": ")
            meanings[name] = meaning
        elif name:
            meanings[name] += f" {line.strip()}"
    meanings |= {"schema": meanings["label_config"]} if "label_config" in meanings else {}  # its name in JSON
    fields = {
        name: field | ({"description": meanings[name]} if name in meanings else {})
        for name, field in schema.get("properties", {}).items()
    }
    return schema | ({"description": text} if text else {}) | ({"properties": fields} if fields else {})
