"""Reads a project's tasks and annotations from Label Studio's API, and as little as is needed to find changes.

Behaviour of Label Studio 1.23 that this relies on:

- A task's `updated_at` changes whenever one of its annotations is created, changed, skipped or deleted, also in bulk.
- Listing a task costs as much as reading its annotations. A filter for text in the results reads all results of the
  project for every listed task. So lists are short, and no filter looks into results.
- `review` keeps a list from requesting predictions of every listed task from the ML backend.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import httpx
from label_studio_sdk.core.api_error import ApiError

from refcut_backend.errors import RefCutError, TokenError, TooLargeError
from refcut_backend.label_studio.client import MAX_ANSWER_BYTES, READ_LIMIT_S, connect, open_http, origin
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import AnnotationPayload, ListedTask, Timestamp, creation_time
from refcut_backend.project_ids import number_of, project_name

if TYPE_CHECKING:
    from label_studio_sdk.base_client import LabelStudioBase

PAGE = 25
"""Tasks per request."""


class SourceError(RefCutError):
    """Label Studio's API cannot be reached or refuses a request."""

    code = "label_studio"


class GoneError(SourceError):
    """Label Studio has no such project, task or annotation."""


class UnreadableError(SourceError):
    """Label Studio's answer has another form than expected, or is too large."""


class AnotherProjectError(SourceError):
    """Label Studio has another project under this number now: it was installed anew, or its address leads elsewhere."""


class AnnotationSource(Protocol):
    """Tasks and annotations of one project. Every method may raise SourceError, whose message says what to do."""

    def newest_change(self) -> Timestamp:
        """Returns `updated_at` of the task that changed last; the empty timestamp for a project without tasks."""

    def annotated_since(self, updated_at: Timestamp) -> Iterator[list[ListedTask]]:
        """Yields annotated tasks that changed at that time or later, in parts; the empty timestamp selects all."""

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

    def newest_change(self) -> Timestamp:
        """See `AnnotationSource`."""
        newest = self._list({"ordering": ["-tasks:updated_at"]}, page_size=1)
        return newest[0].updated_at if newest else Timestamp()

    def annotated_since(self, updated_at: Timestamp) -> Iterator[list[ListedTask]]:
        """See `AnnotationSource`."""
        # Not page by page, because the list changes while people work: each part begins behind the last id.
        last = 0
        while True:
            items = [
                filtered("id", "greater", "Number", last),
                filtered("total_annotations", "greater", "Number", 0),
            ]
            if updated_at:
                items.append(filtered("updated_at", "greater_or_equal", "Datetime", updated_at))
            filters = {"conjunction": "and", "items": items}
            part = self._list({"filters": filters, "ordering": ["tasks:id"]})
            if part:
                yield part
                if part[-1].id <= last:
                    raise SourceError("Label Studio lists tasks again although the request excludes them")
                last = part[-1].id
            if len(part) < PAGE:
                return

    def tasks(self, task_ids: Collection[int]) -> list[ListedTask]:
        """See `AnnotationSource`."""
        ordered, found = sorted(task_ids), []
        # Never an empty selection: Label Studio would return all tasks.
        for start in range(0, len(ordered), PAGE):
            part = ordered[start : start + PAGE]
            found += self._list({"selectedItems": {"all": False, "included": part}})
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

    def _list(self, query: dict[str, Any], page_size: int = PAGE) -> list[ListedTask]:
        with explained(f"project {self._number}"):
            return list_tasks(self._client, self._number, query, page_size)


def list_tasks(
    client: LabelStudioBase, number: int, query: dict[str, Any], page_size: int = PAGE
) -> list[ListedTask]:
    """Returns the first page of a list of tasks.

    Args:
        client: Authorised client.
        number: Label Studio's number of the project.
        query: Filters, selection and order, as Label Studio's data manager takes them.
        page_size: Maximum number of tasks.

    Raises:
        Exception: Whatever the SDK raises; call it inside `explained`.
    """
    pager = client.tasks.list(
        project=number,
        query=json.dumps(query),
        page_size=page_size,
        resolve_uri=False,
        fields="task_only",
        review=True,
    )
    return [_task(task) for task in pager.items or []]


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


def _task(task: Any) -> ListedTask:
    return ListedTask(
        id=task.id,
        data=task.data if isinstance(task.data, dict) else {},
        updated_at=Timestamp(task.updated_at or ""),
        total_annotations=task.total_annotations or 0,
        cancelled_annotations=task.cancelled_annotations or 0,
        total_predictions=task.total_predictions or 0,
    )


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


def filtered(field: str, operator: str, kind: str, value: str | int | list[str]) -> dict[str, Any]:
    """Builds a filter on a field of tasks, as Label Studio's data manager takes it.

    Args:
        field: Field of the task, such as "id".
        operator: Such as "greater" or "contains".
        kind: Type of the value: "Number", "Datetime" or "List".
        value: The value to compare with.
    """
    return {"filter": f"filter:tasks:{field}", "operator": operator, "type": kind, "value": value}
