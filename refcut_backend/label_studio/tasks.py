"""Reads a project's tasks and annotations from Label Studio's API, and as little as is needed to find changes.

Behaviour of Label Studio 1.23 that this relies on:

- A task's `updated_at` changes whenever one of its annotations is created, changed, skipped or deleted, also in bulk.
- Listing a task costs as much as reading its annotations. A filter for text in the results reads all results of the
  project for every listed task. So lists are short, and no filter looks into results.
- `review` keeps a list from requesting predictions of every listed task from the ML backend.
- A list says how many tasks it selects, and how many annotations they have.
- Ids are never given again: tasks up to an id only become fewer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import httpx
from label_studio_sdk.core.api_error import ApiError

from refcut_backend.errors import RefCutError, TokenError, TooLargeError
from refcut_backend.label_studio.client import MAX_ANSWER_BYTES, READ_LIMIT_S, connect, open_http, origin
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import AnnotationPayload, ListedTask, Timestamp, creation_time
from refcut_backend.label_studio.project_ids import number_of, project_name
from refcut_backend.label_studio.task_lists import PAGE, TaskPage, all_of, filtered, list_tasks

if TYPE_CHECKING:
    from label_studio_sdk.base_client import LabelStudioBase


PAGE_WITH_ANNOTATIONS = 10
"""Tasks per request if their masks come along."""
_ANNOTATED = filtered("total_annotations", "greater", "Number", 0)


class SourceError(RefCutError):
    """Label Studio's API cannot be reached or refuses a request."""

    code = "label_studio"


class GoneError(SourceError):
    """Label Studio has no such project, task or annotation."""


class UnreadableError(SourceError):
    """Label Studio's answer has another form than expected, or is too large."""


class AnotherProjectError(SourceError):
    """Label Studio has another project under this number now: it was installed anew, or its address leads elsewhere."""


@dataclass(frozen=True)
class ProjectOverview:
    """What one request tells about all tasks of a project.

    Attributes:
        newest_change: `updated_at` of the task that changed last; the empty timestamp for a project without tasks.
        tasks: Number of tasks.
        annotations: Number of their submitted annotations, without skipped ones.
    """

    newest_change: Timestamp
    tasks: int
    annotations: int


@dataclass(frozen=True)
class AnnotatedTask:
    """A task with its submitted annotations, without skipped ones; or with the reason why they cannot be read."""

    task: ListedTask
    annotations: Sequence[AnnotationPayload] | UnreadableError


@dataclass(frozen=True)
class AnnotatedPart:
    """Some of the annotated tasks of a project, and how many there are from the first of these on."""

    tasks: list[AnnotatedTask]
    remaining: int


@dataclass(frozen=True)
class TaskRange:
    """The tasks of a project up to an id, and how many there are."""

    last_id: int
    tasks: int


class AnnotationSource(Protocol):
    """Tasks and annotations of one project. Every method may raise SourceError, whose message says what to do."""

    def overview(self) -> ProjectOverview:
        """Returns what changes with almost every change of the project."""

    def tasks_up_to(self, task_id: int | None) -> TaskRange:
        """Counts the tasks up to an id; None counts all, up to the newest one."""

    def annotated_since(self, updated_at: Timestamp) -> Iterator[list[ListedTask]]:
        """Yields annotated tasks that changed at that time or later, in parts; the empty timestamp selects all."""

    def annotated_in_full(self) -> Iterator[AnnotatedPart]:
        """Yields all annotated tasks with their annotations, in parts."""

    def emptied_since(self, updated_at: Timestamp, last_id: int) -> Iterator[list[ListedTask]]:
        """Yields tasks up to an id that changed at that time or later and have no annotation that is not skipped."""

    def tasks(self, task_ids: Collection[int]) -> list[ListedTask]:
        """Returns those of the given tasks that exist in this project."""

    def annotations(self, task_id: int) -> list[AnnotationPayload]:
        """Returns a task's submitted annotations, without skipped ones.

        Raises:
            GoneError: The task is gone.
            UnreadableError: The annotations cannot be read; those of other tasks may be readable.
        """

    def emails(self) -> dict[int, str]:
        """Returns the e-mail addresses of Label Studio's users by id."""

    def close(self) -> None:
        """Closes the connection."""


class ApiAnnotations:
    """An AnnotationSource over label-studio-sdk's client."""

    def __init__(self, client: LabelStudioBase, number: int, http: httpx.Client | None = None) -> None:
        """Reads with a client.

        Args:
            client: Authorised client.
            number: Label Studio's number of the project.
            http: What the client sends with; `close` closes it.
        """
        self._client = client
        self._number = number
        self._http = http

    def overview(self) -> ProjectOverview:
        """See `AnnotationSource`."""
        page = self._page({"ordering": ["-tasks:updated_at"]}, page_size=1)
        newest = page.tasks[0].updated_at if page.tasks else Timestamp()
        return ProjectOverview(newest, page.total, page.total_annotations)

    def tasks_up_to(self, task_id: int | None) -> TaskRange:
        """See `AnnotationSource`."""
        query: dict[str, Any] = {"ordering": ["-tasks:id"]}
        if task_id is not None:
            query["filters"] = all_of(filtered("id", "less_or_equal", "Number", task_id))
        page = self._page(query, page_size=1)
        newest = page.tasks[0].id if page.tasks else 0
        return TaskRange(newest if task_id is None else task_id, page.total)

    def annotated_since(self, updated_at: Timestamp) -> Iterator[list[ListedTask]]:
        """See `AnnotationSource`."""
        changed = [filtered("updated_at", "greater_or_equal", "Datetime", updated_at)] if updated_at else []
        for page in self._in_parts(_ANNOTATED, *changed):
            yield page.tasks

    def annotated_in_full(self) -> Iterator[AnnotatedPart]:
        """See `AnnotationSource`."""
        for page in self._in_parts(_ANNOTATED, with_annotations=True):
            if page.annotations:
                tasks = list(map(_annotated, page.tasks, page.annotations))
            else:
                tasks = [AnnotatedTask(task, self._annotations_or_error(task.id)) for task in page.tasks]
            yield AnnotatedPart(tasks, page.total)

    def emptied_since(self, updated_at: Timestamp, last_id: int) -> Iterator[list[ListedTask]]:
        """See `AnnotationSource`."""
        for page in self._in_parts(
            filtered("total_annotations", "equal", "Number", 0),
            filtered("updated_at", "greater_or_equal", "Datetime", updated_at),
            filtered("id", "less_or_equal", "Number", last_id),
        ):
            yield page.tasks

    def sampling(self) -> str:
        """Returns the order in which the label stream offers tasks, as Label Studio names it."""
        with explained(f"project {self._number}"):
            return str(self._client.projects.get(id=self._number).sampling or "")

    def unannotated_behind(self, task_id: int, limit: int) -> list[ListedTask]:
        """Returns the first tasks behind a task, by id, that nobody has annotated or skipped.

        Args:
            task_id: The task.
            limit: Maximum number of tasks.
        """
        behind = filtered("id", "greater", "Number", task_id)
        untouched = (
            filtered(field, "equal", "Number", 0) for field in ("total_annotations", "cancelled_annotations")
        )
        return self._page({"filters": all_of(behind, *untouched), "ordering": ["tasks:id"]}, limit).tasks

    def tasks(self, task_ids: Collection[int]) -> list[ListedTask]:
        """See `AnnotationSource`."""
        ordered, found = sorted(task_ids), []
        # Never an empty selection: Label Studio would return all tasks.
        for start in range(0, len(ordered), PAGE):
            part = ordered[start : start + PAGE]
            found += self._page({"selectedItems": {"all": False, "included": part}}).tasks
        return found

    def annotations(self, task_id: int) -> list[AnnotationPayload]:
        """See `AnnotationSource`."""
        with explained(f"task {task_id}"):
            return [_annotation(a) for a in self._client.annotations.list(id=task_id)]

    def replace_result(self, annotation_id: int, result: list[dict[str, Any]]) -> None:
        """Stores other regions in a submitted annotation. Raises SourceError if Label Studio refuses."""
        with explained(f"annotation {annotation_id}"):
            self._client.annotations.update(id=annotation_id, result=result)

    def emails(self) -> dict[int, str]:
        """See `AnnotationSource`."""
        with explained("the list of users"):
            return {user.id: user.email for user in self._client.users.list() if user.email}

    def close(self) -> None:
        """See `AnnotationSource`."""
        if self._http is not None:
            self._http.close()

    def _annotations_or_error(self, task_id: int) -> list[AnnotationPayload] | UnreadableError:
        try:
            return self.annotations(task_id)
        except GoneError:
            return []
        except UnreadableError as error:
            return error

    def _in_parts(self, *filters: dict[str, Any], with_annotations: bool = False) -> Iterator[TaskPage]:
        # Not page by page, because the list changes while people work: each part begins behind the last id.
        last, size = 0, PAGE_WITH_ANNOTATIONS if with_annotations else PAGE
        while True:
            behind = all_of(filtered("id", "greater", "Number", last), *filters)
            query = {"filters": behind, "ordering": ["tasks:id"]}
            try:
                page = self._page(query, size, with_annotations=with_annotations)
            except SourceError:
                if not with_annotations:
                    raise
                # One task with very many masks must not keep the others from being read.
                page = self._page(query, size)
            if page.tasks:
                yield page
                if page.tasks[-1].id <= last:
                    raise SourceError("Label Studio lists tasks again although the request excludes them")
                last = page.tasks[-1].id
            if len(page.tasks) < size:
                return

    def _page(
        self, query: dict[str, Any], page_size: int = PAGE, *, with_annotations: bool = False
    ) -> TaskPage:
        with explained(f"project {self._number}"):
            return list_tasks(self._client, self._number, query, page_size, with_annotations=with_annotations)


def open_source(project_id: int, connection: Connection, total_s: float | None = None) -> ApiAnnotations:
    """Opens a project's tasks and annotations with its token.

    Args:
        project_id: The project.
        connection: Address and token of its Label Studio.
        total_s: Longest time in seconds for all requests together; None for no limit.

    Raises:
        AnotherProjectError: Label Studio has another project under this number now.
        SourceError: There is no token, or Label Studio cannot be read.
    """
    if not connection.access_token:
        raise SourceError("there is no token for Label Studio", hint="set REFCUT_ACCESS_TOKEN")
    http = open_http(connection, READ_LIMIT_S, total_s=total_s)
    client = connect(connection, http=http)
    try:
        check_same_project(client, project_id, connection)
    except BaseException:
        http.close()
        raise
    return ApiAnnotations(client, number_of(project_id), http)


def check_same_project(client: LabelStudioBase, project_id: int, connection: Connection) -> None:
    """Checks that Label Studio's project is the one that called /setup, as far as it is known when that was created.

    Raises:
        AnotherProjectError: It was created at another time.
        SourceError: Label Studio cannot be read.
    """
    if connection.project_created is None:
        return
    number = number_of(project_id)
    with explained(f"project {number}"):
        created = creation_time(client.projects.get(id=number).created_at)
    if created not in (None, connection.project_created):
        raise AnotherProjectError(
            f"Label Studio at {origin(connection.label_studio)} has another project {number} now",
            hint=f"what is stored about the former one stays; `refcut projects forget --project "
            f"{project_name(project_id)}` deletes it",
        )


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns errors of the SDK into SourceError. The SDK's messages repeat bodies and headers, so they are dropped.

    Args:
        what: What the block reads or writes, for the message: "task 7".

    Raises:
        GoneError: Label Studio answers 404.
        UnreadableError: Its answer has another form, or is too large.
        SourceError: Any other error of the call.
    """
    try:
        yield
    except ApiError as error:
        status = error.status_code
        if status == 404:
            raise GoneError(f"Label Studio has no {what}", hint="was it deleted?") from None
        if status in (401, 403):
            raise SourceError(
                f"Label Studio refuses the token for {what} ({status})",
                hint="enable legacy tokens in the organization, or set REFCUT_ACCESS_TOKEN to a token that works",
            ) from None
        raise SourceError(f"Label Studio answers {status} for {what}", hint="see its log") from None
    except TokenError as error:
        raise SourceError(error.message, hint=error.hint) from None
    except TooLargeError:
        raise UnreadableError(
            f"Label Studio's answer for {what} is larger than {MAX_ANSWER_BYTES // 2**20} MiB",
            hint="is it really Label Studio at that address?",
        ) from None
    except httpx.HTTPError as error:
        raise SourceError(
            f"Label Studio cannot be reached for {what} ({type(error).__name__})",
            hint="LABEL_STUDIO_HOST must be an address that this machine can reach",
        ) from None
    except (ValueError, RecursionError) as error:
        # pydantic's ValidationError, for an answer of another form, is a ValueError.
        raise UnreadableError(
            f"Label Studio's answer for {what} is not understood ({type(error).__name__})",
            hint="tested with Label Studio 1.23: is it another version, or another server?",
        ) from None


def _annotated(task: ListedTask, annotations: list[dict[str, Any]]) -> AnnotatedTask:
    try:
        with explained(f"task {task.id}"):
            read = [AnnotationPayload.model_validate(annotation) for annotation in annotations]
    except UnreadableError as error:
        return AnnotatedTask(task, error)
    return AnnotatedTask(task, [annotation for annotation in read if not annotation.was_cancelled])


def _annotation(annotation: Any) -> AnnotationPayload:
    return AnnotationPayload(
        id=annotation.id,
        result=annotation.result,
        was_cancelled=bool(annotation.was_cancelled),
        updated_at=Timestamp(annotation.updated_at or ""),
        task=annotation.task,
        completed_by=annotation.completed_by,
        updated_by=annotation.updated_by,
    )
