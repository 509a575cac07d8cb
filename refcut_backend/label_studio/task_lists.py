"""Lists of tasks, as Label Studio's data manager selects, orders and pages them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refcut_backend.label_studio.payloads import ListedTask, Timestamp

if TYPE_CHECKING:
    from label_studio_sdk.base_client import LabelStudioBase

PAGE = 25
"""Tasks per request."""


@dataclass(frozen=True)
class TaskPage:
    """The first tasks of a list.

    Attributes:
        tasks: The tasks.
        annotations: For each task the annotations as they came, skipped ones too; empty if they were not requested.
        total: Number of all tasks that the list selects.
        total_annotations: Number of their submitted annotations, without skipped ones.
    """

    tasks: list[ListedTask]
    annotations: list[list[dict[str, Any]]]
    total: int
    total_annotations: int


def list_tasks(
    client: LabelStudioBase,
    number: int,
    query: dict[str, Any],
    page_size: int = PAGE,
    *,
    with_annotations: bool = False,
) -> TaskPage:
    """Returns the first page of a list of tasks.

    Args:
        client: Authorised client.
        number: Label Studio's number of the project.
        query: Filters, selection and order, as Label Studio's data manager takes them.
        page_size: Maximum number of tasks.
        with_annotations: Requests their annotations with all masks. Drafts and predictions come along.

    Raises:
        Exception: Whatever the SDK raises; call it inside `explained`.
    """
    pager = client.tasks.list(
        project=number,
        query=json.dumps(query),
        page_size=page_size,
        resolve_uri=False,
        fields="all" if with_annotations else "task_only",
        review=True,
    )
    items = pager.items or []
    found = [task.annotations or [] for task in items] if with_annotations else []
    total, annotations = (getattr(pager.response, name, None) for name in ("total", "total_annotations"))
    if not isinstance(total, int) or not isinstance(annotations, int):
        raise ValueError("a list of tasks without their number")
    return TaskPage([_task(task) for task in items], found, total, annotations)


def _task(task: Any) -> ListedTask:
    return ListedTask(
        id=task.id,
        data=task.data if isinstance(task.data, dict) else {},
        updated_at=Timestamp(task.updated_at or ""),
        total_annotations=task.total_annotations or 0,
        cancelled_annotations=task.cancelled_annotations or 0,
        total_predictions=task.total_predictions or 0,
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


def all_of(*filters: dict[str, Any]) -> dict[str, Any]:
    """Builds the filter that selects the tasks that pass all of these."""
    return {"conjunction": "and", "items": list(filters)}
