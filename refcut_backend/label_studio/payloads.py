"""What Label Studio sends, as far as it is read. Unknown fields are ignored; a region's value is not looked into.

Validate a body with `model_validate_json`: what is ignored, above all the masks of a task's annotations, is then
skipped while parsing and never becomes Python objects.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_KEY = re.compile(rb'"rle"\s*+:\s*+\[')


def without_masks(body: bytes) -> bytes:
    """JSON in which the list under every key `rle` is empty: megabytes less to parse. The key stays.

    Inside a JSON string the quotes of the key would be escaped, so it is found nowhere else; a list that holds strings,
    lists or objects is no mask and stays as it is.
    """
    kept, done = [], 0
    match = _KEY.search(body)
    while match:
        start = match.end()
        quote = body.find(b'"', start)
        # No further than the next string: the time must stay linear, whatever the body is.
        end = body.find(b"]", start, len(body) if quote < 0 else quote)
        if end >= 0 and body.find(b"[", start, end) < 0 and body.find(b"{", start, end) < 0:
            kept.append(body[done:start])
            start = done = end
        match = _KEY.search(body, start)
    return b"".join([*kept, body[done:]])


_FORM = "%Y-%m-%dT%H:%M:%S.%fZ"


def sortable(time: str) -> str:
    """A time as Label Studio writes it, in UTC and always with microseconds: later times sort later.

    Label Studio leaves the fraction out when it is zero, which plain text would sort behind. What is no time at all stays
    as it is.
    """
    try:
        read = datetime.fromisoformat(time)
    except ValueError:
        return time
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC).strftime(_FORM)


def earlier(time: str, seconds: float) -> str:
    """A sortable time, some seconds before. Raises ValueError for what `sortable` did not write."""
    return (datetime.strptime(time, _FORM) - timedelta(seconds=seconds)).strftime(_FORM)


_PROJECT = re.compile(r"([0-9]{1,18})(\.[0-9]+)?")


def _project_id(value: Any) -> int:
    """ "2.1795342440" (id and creation time) or 2 to 2."""
    match = _PROJECT.fullmatch(str(value))
    if not match:
        raise ValueError("a project id is a number, as Label Studio sends it")
    return int(match[1])


def _creation_time(value: Any) -> str | None:
    """ "2.1795342440" to "1795342440"."""
    match = _PROJECT.fullmatch(str(value))
    return match[2][1:] if match and match[2] else None


def _known_id(value: int) -> int:
    if not 0 < value < 2**53:
        raise ValueError("an id is a positive number")
    return value


def _or_empty(value: Any) -> Any:
    return [] if value is None else value


def _user_id(value: Any) -> Any:
    """Users come as ids, and in some lists as objects."""
    return value.get("id") if isinstance(value, dict) else value


ProjectId = Annotated[int, BeforeValidator(_project_id), AfterValidator(_known_id)]
RowId = Annotated[int, AfterValidator(_known_id)]
UserId = Annotated[int | None, BeforeValidator(_user_id)]


class _Payload(BaseModel):
    model_config = ConfigDict(extra="ignore")


class SetupRequest(_Payload):
    """POST /setup: on connecting, and on every page that shows the project. born: when the project was made."""

    project: ProjectId
    created_at: str | None = None
    label_config: str = Field("", alias="schema")
    hostname: str = ""
    access_token: str | None = None
    extra_params: Any = None

    @model_validator(mode="before")
    @classmethod
    def _with_creation_time(cls, data: Any) -> Any:
        return data | {"created_at": _creation_time(data.get("project"))} if isinstance(data, dict) else data


class RegionId(_Payload):
    """Which region, whatever it holds."""

    id: str = ""


class AcceptedRegions(_Payload):
    """The regions of an annotation or a draft."""

    result: list[RegionId] = Field(default_factory=list)


Accepted = Annotated[list[AcceptedRegions] | Any, Field(union_mode="left_to_right")]
"""Whatever else stands there must not fail a click."""


class TaskPayload(_Payload):
    """A task; of its annotations and drafts only which regions they have."""

    id: RowId
    data: dict[str, Any] = Field(default_factory=dict)
    annotations: Accepted = Field(default_factory=list)
    drafts: Accepted = Field(default_factory=list)

    def seen_region_ids(self) -> frozenset[str]:
        """Ids of the regions in its annotations and drafts."""
        entries = [
            entry
            for listed in (self.annotations, self.drafts)
            for entry in (listed if isinstance(listed, list) else [])
        ]
        return frozenset(
            region.id for entry in entries if isinstance(entry, AcceptedRegions) for region in entry.result
        )


class Context(_Payload):
    """What the annotator has on the canvas of the clicked label."""

    result: list[dict[str, Any]] = Field(default_factory=list)


class PredictParams(_Payload):
    """`login` and `password` stay unread."""

    context: Context | None = None


class PredictRequest(_Payload):
    """POST /predict: a click (with context), or a task that is being opened or predicted in a batch (without)."""

    tasks: list[TaskPayload] = Field(min_length=1)
    project: ProjectId
    label_config: str = ""
    params: PredictParams = Field(default_factory=PredictParams)


class JobStatusRequest(_Payload):
    """POST /job_status: what has become of a training that the button began. job: what we had called it."""

    job: Annotated[str, Field(max_length=128)]


class AnnotationPayload(_Payload):
    """An annotation in a webhook or in the API's list; deleted ones carry their id alone."""

    id: RowId
    result: Annotated[list[dict[str, Any]], BeforeValidator(_or_empty)] = Field(default_factory=list)
    was_cancelled: bool = False
    updated_at: str = ""
    task: int | None = None
    completed_by: UserId = None
    updated_by: UserId = None

    @property
    def author_id(self) -> int | None:
        """Who saved it last."""
        return self.completed_by if self.updated_by is None else self.updated_by


class ListedTask(TaskPayload):
    """A task in a webhook about an annotation, or in the API's list."""

    updated_at: str = ""
    total_annotations: int = 0
    cancelled_annotations: int = 0
    total_predictions: int = 0

    @property
    def fingerprint(self) -> str:
        """Changes whenever the task's annotations do; the same in a webhook and in the API's list."""
        return f"{sortable(self.updated_at)}/{self.total_annotations}/{self.cancelled_annotations}"


class WebhookProject(_Payload):
    """The project in a webhook."""

    id: ProjectId
    label_config: str = ""
    updated_at: str = ""


class DeletedTask(_Payload):
    """A deleted task."""

    id: RowId


class Webhook(_Payload):
    """POST /webhook. Which fields are there depends on the action (contract, section 2).

    annotation and task are lists when annotations are made in bulk.
    """

    action: str
    project: WebhookProject | None = None
    task: ListedTask | list[ListedTask] | None = None
    annotation: AnnotationPayload | list[AnnotationPayload] | None = None
    annotations: list[AnnotationPayload] = Field(default_factory=list)
    tasks: list[DeletedTask] = Field(default_factory=list)

    def changed_annotations(self) -> list[AnnotationPayload]:
        """The annotations that were made or changed, whether or not their tasks came along."""
        return _listed(self.annotation)

    def states(self) -> list[tuple[AnnotationPayload, ListedTask]]:
        """Annotations with their tasks; those whose task did not come along are left out."""
        tasks = {task.id: task for task in _listed(self.task)}
        only = next(iter(tasks.values())) if len(tasks) == 1 else None
        pairs = [(a, tasks.get(a.task) if a.task is not None else only) for a in _listed(self.annotation)]
        return [(annotation, task) for annotation, task in pairs if task is not None]


P = TypeVar("P")


def _listed(value: P | list[P] | None) -> list[P]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
