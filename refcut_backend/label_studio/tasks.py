"""What a project's annotations say, read from Label Studio's API: as little of it as tells what has changed.

Tried with Label Studio 1.23: a task's `updated_at` moves whenever an annotation of it is made, changed, skipped or
deleted, also in bulk. Listing a task costs Label Studio as much as reading its annotations, and a filter for text in the
results reads all results of the project for every task on the list: so lists are kept short, and nothing is filtered by
what it says. `review` keeps a list from asking the ML backend for predictions of every task on it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from refcut_backend.errors import RefCutError, TokenError
from refcut_backend.label_studio.client import READ_LIMIT_S, connect, open_http
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import AnnotationPayload, ListedTask, sortable

PAGE = 25


class SourceError(RefCutError):
    """Label Studio's API cannot be reached, or refuses."""

    code = "label_studio"


class GoneError(SourceError):
    """Label Studio has no such project, task or annotation."""


class AnnotationSource(Protocol):
    """One project's tasks and annotations. Every method raises SourceError that says what to do."""

    def newest_change(self) -> str:
        """`updated_at` of the task that changed last; "" for a project without tasks."""

    def annotated_since(self, updated_at: str) -> Iterator[list[ListedTask]]:
        """Tasks with annotations that changed at that time or later, in parts; "" = all."""

    def tasks(self, task_ids: Collection[int]) -> list[ListedTask]:
        """Those of some tasks that exist in this project."""

    def annotations(self, task_id: int) -> list[AnnotationPayload]:
        """A task's submitted annotations, without skipped ones. Raises GoneError when the task is gone."""

    def emails(self) -> dict[int, str]:
        """Addresses of Label Studio's users by id."""

    def close(self) -> None:
        """Ends the connection."""


class ApiAnnotations:
    """An AnnotationSource over label-studio-sdk's client."""

    def __init__(self, client: LabelStudio, project_id: int, http: httpx.Client | None = None) -> None:
        """http: what the client sends with, closed with this."""
        self._client = client
        self._project_id = project_id
        self._http = http

    def newest_change(self) -> str:
        newest = self._list({"ordering": ["-tasks:updated_at"]}, page_size=1)
        return newest[0].updated_at if newest else ""

    def annotated_since(self, updated_at: str) -> Iterator[list[ListedTask]]:
        # Page by page a list would move under our hands while people work: each part begins behind the last id.
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
                last = part[-1].id
            if len(part) < PAGE:
                return

    def tasks(self, task_ids: Collection[int]) -> list[ListedTask]:
        ordered, found = sorted(task_ids), []
        # Never an empty part: for Label Studio that means all tasks.
        for start in range(0, len(ordered), PAGE):
            part = ordered[start : start + PAGE]
            found += self._list({"selectedItems": {"all": False, "included": part}})
        return found

    def annotations(self, task_id: int) -> list[AnnotationPayload]:
        with explained(f"task {task_id}"):
            return [_annotation(a) for a in self._client.annotations.list(id=task_id)]

    def emails(self) -> dict[int, str]:
        with explained("the list of users"):
            return {user.id: user.email for user in self._client.users.list() if user.email}

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def _list(self, query: dict[str, Any], page_size: int = PAGE) -> list[ListedTask]:
        with explained(f"project {self._project_id}"):
            return list_tasks(self._client, self._project_id, query, page_size)


def list_tasks(
    client: LabelStudio, project_id: int, query: dict[str, Any], page_size: int = PAGE
) -> list[ListedTask]:
    """The first page of a list of tasks. Raises what the SDK raises: `explained` says what that means."""
    pager = client.tasks.list(
        project=project_id,
        query=json.dumps(query),
        page_size=page_size,
        resolve_uri=False,
        fields="task_only",
        review=True,
    )
    return [_task(task) for task in pager.items or []]


def open_source(project_id: int, connection: Connection) -> ApiAnnotations:
    """A project's annotations, read with its token."""
    if not connection.access_token:
        raise SourceError("there is no token for Label Studio", hint="set REFCUT_ACCESS_TOKEN")
    http = open_http(connection, READ_LIMIT_S)
    return ApiAnnotations(connect(connection, http=http), project_id, http)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """The SDK's errors as SourceError. Its own messages repeat bodies and headers, so none of them is kept."""
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
    except httpx.HTTPError as error:
        raise SourceError(
            f"Label Studio cannot be reached for {what} ({type(error).__name__})",
            hint="LABEL_STUDIO_HOST must be an address that this machine can reach",
        ) from None
    except ValueError as error:
        # Also what pydantic raises for an answer of another form.
        raise SourceError(
            f"Label Studio's answer for {what} is not understood ({type(error).__name__})",
            hint="tried with Label Studio 1.23: is it another version, or no Label Studio at all?",
        ) from None


def _task(task: Any) -> ListedTask:
    return ListedTask(
        id=task.id,
        data=task.data or {},
        updated_at=_time(task.updated_at),
        total_annotations=task.total_annotations or 0,
        cancelled_annotations=task.cancelled_annotations or 0,
        total_predictions=task.total_predictions or 0,
    )


def _annotation(annotation: Any) -> AnnotationPayload:
    return AnnotationPayload(
        id=annotation.id,
        result=annotation.result,
        was_cancelled=bool(annotation.was_cancelled),
        updated_at=_time(annotation.updated_at),
        task=annotation.task,
        completed_by=annotation.completed_by,
        updated_by=annotation.updated_by,
    )


def _time(value: Any) -> str:
    return sortable(value if isinstance(value, str) else value.isoformat())


def filtered(field: str, operator: str, kind: str, value: str | int | list[str]) -> dict[str, Any]:
    """An item of a list's filters."""
    return {"filter": f"filter:tasks:{field}", "operator": operator, "type": kind, "value": value}
