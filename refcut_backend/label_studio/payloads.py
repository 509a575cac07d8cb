"""Requests and webhooks of Label Studio as pydantic models: only the fields that this backend reads.

Unknown fields are ignored, and region values are not validated here. Validate a body with `model_validate_json`: fields
that are ignored, above all the masks in a task's annotations, are then skipped by the parser and never become Python
objects.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Field, PlainValidator
from pydantic_core import core_schema

from refcut_backend.label_studio.project_ids import ProjectRef

MAX_TASKS = 10_000
"""Tasks in one request. Label Studio sends far fewer at once."""
MAX_CONFIG_CHARS = 2**20
"""Length of a label config. Ten thousand labels take two thirds of it."""

_RLE_KEY = re.compile(rb'"rle"\s*+:\s*+\[')


def without_masks(body: bytes) -> bytes:
    """Empties the list under every key `rle` of a JSON body, which saves megabytes of parsing.

    The key itself stays. Inside a JSON string its quotes would be escaped, so the pattern matches nowhere else. A list
    that contains strings, lists or objects is not a mask and stays as it is. The time is linear in the body's length.
    """
    parts, done = [], 0
    match = _RLE_KEY.search(body)
    while match:
        start = match.end()
        quote = body.find(b'"', start)
        # Search no further than the next string, so that the time stays linear for any body.
        end = body.find(b"]", start, len(body) if quote < 0 else quote)
        if end >= 0 and body.find(b"[", start, end) < 0 and body.find(b"{", start, end) < 0:
            parts.append(body[done:start])
            start = done = end
        match = _RLE_KEY.search(body, start)
    return b"".join([*parts, body[done:]])


def _aware(time: str | datetime) -> datetime:
    """Reads a time; one without a zone is taken for UTC. Raises ValueError if it cannot be read."""
    read = datetime.fromisoformat(time) if isinstance(time, str) else time
    return read if read.tzinfo else read.replace(tzinfo=UTC)


class Timestamp(str):
    """A time of Label Studio, normalised once where it enters: UTC, always with microseconds.

    The normal form sorts by time, so timestamps compare in Python and in SQL, and the database stores them as text. Label
    Studio omits a fraction of zero and may use another time zone, so its own text does not sort. Text that is not a time
    stays as it is; the empty timestamp means "unknown" or "never" and is before every other.

    >>> Timestamp("2026-11-22T12:00:00+02:00")
    '2026-11-22T10:00:00.000000Z'
    >>> Timestamp("2026-11-22T10:00:00.5Z") > Timestamp("2026-11-22T10:00:00Z") > Timestamp()
    True
    """

    __slots__ = ()

    def __new__(cls, time: str | datetime = "") -> Timestamp:
        """Normalises a time. A time without a zone is taken for UTC."""
        try:
            utc = _aware(time).astimezone(UTC).replace(tzinfo=None)
        except (ValueError, OverflowError):  # the first and the last day of all, in another time zone
            return super().__new__(cls, time)
        return super().__new__(cls, f"{utc.isoformat(timespec='microseconds')}Z")

    def minus(self, seconds: float) -> Timestamp:
        """Returns a time some seconds earlier; the empty timestamp if this text is not a time or there is no such one."""
        try:
            return Timestamp(datetime.fromisoformat(self) - timedelta(seconds=seconds))
        except (ValueError, OverflowError):
            return Timestamp()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Lets pydantic models have timestamps as fields: text is validated and normalised."""
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


def _number(value: Any) -> int:
    """Converts "2.1795342440" (number and creation time) or 2 to 2."""
    return ProjectRef.read(value).number


def creation_time(created_at: str | datetime | None) -> str | None:
    """Converts the `created_at` of a project, in webhooks and in the API, to the form in requests: seconds since 1970."""
    try:
        return None if created_at is None else str(int(_aware(created_at).timestamp()))
    except (ValueError, OverflowError):
        return None


def _known_id(value: int) -> int:
    if not 0 < value < 2**53:
        raise ValueError("an id is a positive number")
    return value


def _text_or_none(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _items(value: Any) -> list[Any]:
    """The items of a `result`. Whether each has the form of a region is checked where they are used."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _id_or_none(value: Any) -> int | None:
    """An id that need not be known. Users come as ids, in some lists as objects; a number that is no id is unknown."""
    if isinstance(value, dict):
        value = value.get("id")
    is_id = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53
    return value if is_id else None


Project = Annotated[ProjectRef, PlainValidator(ProjectRef.read)]
ProjectNumber = Annotated[int, BeforeValidator(_number)]
RowId = Annotated[int, AfterValidator(_known_id)]
OptionalId = Annotated[int | None, BeforeValidator(_id_or_none)]


class _Payload(BaseModel):
    model_config = ConfigDict(extra="ignore")


class SetupRequest(_Payload):
    """POST /setup. Label Studio sends it on connecting and for every page that shows the project.

    Attributes:
        label_config: The project's label config (XML).
        hostname: Label Studio's own address; empty if LABEL_STUDIO_HOST is not set.
        access_token: Token of the user who connected the backend.
        extra_params: Extra parameters of the ML backend, as the owner typed them.
    """

    project: Project
    label_config: str = Field("", alias="schema", max_length=MAX_CONFIG_CHARS)
    hostname: str = Field("", max_length=2000)
    access_token: str | None = Field(None, max_length=4000)
    extra_params: Any = None


class RegionId(_Payload):
    """A region, reduced to its id."""

    id: str = ""


class AcceptedRegions(_Payload):
    """The regions of an annotation or a draft.

    Attributes:
        id: Its id.
        annotation: The annotation that a draft changes; None for a draft of a new one.
    """

    id: OptionalId = None
    annotation: OptionalId = None
    result: list[RegionId] = Field(default_factory=list)


Accepted = Annotated[list[AcceptedRegions] | Any, Field(union_mode="left_to_right")]
"""Annotations or drafts of a task. Any other form is accepted, because it must not fail a click."""


class TaskPayload(_Payload):
    """A task. Of its annotations and drafts only the region ids are read."""

    id: RowId
    data: dict[str, Any] = Field(default_factory=dict)
    annotations: Accepted = Field(default_factory=list)
    drafts: Accepted = Field(default_factory=list)

    def seen_region_ids(self) -> frozenset[str] | None:
        """Returns the ids of all regions in the task's annotations and drafts; None if the request lacks these lists.

        A draft that changes an annotation stands for it: what it lacks was deleted.
        """
        if not {"annotations", "drafts"} <= self.model_fields_set:
            return None
        drafts = _read_entries(self.drafts)
        changed = {draft.annotation for draft in drafts if draft.annotation is not None}
        entries = [one for one in _read_entries(self.annotations) if one.id not in changed] + drafts
        return frozenset(region.id for entry in entries for region in entry.result)


def _read_entries(listed: Any) -> list[AcceptedRegions]:
    entries = listed if isinstance(listed, list) else []
    return [entry for entry in entries if isinstance(entry, AcceptedRegions)]


class Context(_Payload):
    """Prompts of the clicked label that are on the annotator's canvas."""

    result: Annotated[list[dict[str, Any]], FailFast()] = Field(default_factory=list)


class PredictParams(_Payload):
    """Parameters of /predict. `login` and `password` are not read."""

    context: Context | None = None


class PredictRequest(_Payload):
    """POST /predict: a click if it has a context; otherwise a task that is opened, or predicted in a batch."""

    tasks: Annotated[list[TaskPayload], FailFast()] = Field(min_length=1, max_length=MAX_TASKS)
    project: Project
    label_config: str = ""
    params: PredictParams = Field(default_factory=PredictParams)


class JobStatusRequest(_Payload):
    """POST /job_status: asks for the state of a training that the button started. `job` is our id of the run."""

    job: Annotated[str, Field(max_length=128)]


class AnnotationPayload(_Payload):
    """An annotation in a webhook or in the API's list. A deleted annotation has only its id.

    Attributes:
        result: Items as Label Studio stores them, unchecked: it stores whatever its API is given.
    """

    id: RowId
    result: Annotated[list[Any], BeforeValidator(_items)] = Field(default_factory=list)
    was_cancelled: bool = False
    updated_at: Timestamp = Timestamp()
    task: OptionalId = None
    completed_by: OptionalId = None
    updated_by: OptionalId = None

    @property
    def author_id(self) -> int | None:
        """Id of the user who saved the annotation last."""
        return self.completed_by if self.updated_by is None else self.updated_by


class ListedTask(TaskPayload):
    """A task in a webhook about an annotation, or in the API's list."""

    updated_at: Timestamp = Timestamp()
    total_annotations: int = 0
    cancelled_annotations: int = 0
    total_predictions: int = 0

    @property
    def fingerprint(self) -> str:
        """Changes with every change of the task's annotations. A webhook and the API's list give the same fingerprint."""
        return f"{self.updated_at}/{self.total_annotations}/{self.cancelled_annotations}"


class WebhookProject(_Payload):
    """The project in a webhook.

    Attributes:
        id: Label Studio's number of the project; `api.handlers` replaces it by the project id.
    """

    id: ProjectNumber
    label_config: str = ""
    created_at: Annotated[str | None, BeforeValidator(_text_or_none)] = None
    updated_at: Timestamp = Timestamp()

    @property
    def ref(self) -> ProjectRef:
        """The project as the webhook names it."""
        return ProjectRef(self.id, creation_time(self.created_at))


class DeletedTask(_Payload):
    """A deleted task."""

    id: RowId


class Webhook(_Payload):
    """POST /webhook. The fields depend on the action (contract, section 2).

    Attributes:
        task: The annotation's task; a list if annotations were created in bulk.
        annotation: The annotation that was created or updated; a list if annotations were created in bulk.
        annotations: Annotations that were deleted.
        tasks: Tasks that were deleted.
    """

    action: str
    project: WebhookProject | None = None
    task: ListedTask | list[ListedTask] | None = None
    annotation: AnnotationPayload | list[AnnotationPayload] | None = None
    annotations: Annotated[list[AnnotationPayload], FailFast()] = Field(default_factory=list)
    tasks: Annotated[list[DeletedTask], FailFast()] = Field(default_factory=list)

    def changed_annotations(self) -> list[AnnotationPayload]:
        """Returns the annotations that were created or updated, with or without their tasks."""
        return _as_list(self.annotation)

    def states(self) -> list[tuple[AnnotationPayload, ListedTask]]:
        """Returns the created or updated annotations with their tasks; annotations without a task are omitted."""
        tasks = {task.id: task for task in _as_list(self.task)}
        only = next(iter(tasks.values())) if len(tasks) == 1 else None
        pairs = [(a, tasks.get(a.task) if a.task is not None else only) for a in _as_list(self.annotation)]
        return [(annotation, task) for annotation, task in pairs if task is not None]


P = TypeVar("P")


def _as_list(value: P | list[P] | None) -> list[P]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
