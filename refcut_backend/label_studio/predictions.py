"""Finds a project's tasks without a prediction, and stores predictions, over Label Studio's API.

Label Studio 1.23 does not list which model made a task's predictions, but can filter tasks by it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from refcut_backend.errors import TokenError
from refcut_backend.label_studio.client import READ_LIMIT_S, connect, open_http
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import ListedTask
from refcut_backend.label_studio.project_ids import number_of
from refcut_backend.label_studio.task_lists import PAGE, all_of, filtered, list_tasks
from refcut_backend.label_studio.tasks import check_same_project, explained

TAB = "Most uncertain first"
_HIDDEN = (
    "inner_id",
    "completed_at",
    "cancelled_annotations",
    "total_predictions",
    "annotations_results",
    "annotations_ids",
    "predictions_results",
    "file_upload",
    "storage_filename",
    "created_at",
    "updated_at",
    "updated_by",
    "avg_lead_time",
    "draft_exists",
)
"""Columns of the Data Manager that the tab does not show. The score, which it hides by default, is not among them."""


@dataclass(frozen=True)
class ProjectTask:
    """A task, and whether it has a prediction of the requested model version."""

    task: ListedTask
    is_predicted: bool

    @property
    def is_annotated(self) -> bool:
        """Whether it was submitted or skipped."""
        return bool(self.task.total_annotations or self.task.cancelled_annotations)

    @property
    def is_open(self) -> bool:
        """Whether it still needs a prediction."""
        return not (self.is_annotated or self.is_predicted)


class ProjectPredictions:
    """Predictions of one project. Every method may raise SourceError, whose message says what to do. Thread-safe."""

    def __init__(self, project_id: int, connection: Connection) -> None:
        """Connects to the project's Label Studio.

        Raises:
            TokenError: There is no token.
            AnotherProjectError: Label Studio has another project under this number now.
            SourceError: Label Studio cannot be read.
        """
        if not connection.access_token:
            raise TokenError("there is no token for Label Studio", hint="set REFCUT_ACCESS_TOKEN")
        self._number = number_of(project_id)
        self._http = open_http(connection, READ_LIMIT_S)
        self._client = connect(connection, http=self._http)
        self._http_once = open_http(connection, READ_LIMIT_S, retries=False)
        self._client_once = connect(connection, http=self._http_once)
        try:
            check_same_project(self._client, project_id, connection)
        except BaseException:
            self.close()
            raise

    def tasks(self, model_version: str) -> Iterator[ProjectTask]:
        """Yields all tasks in the order of their ids, and reads them in parts as they are consumed."""
        last = 0
        while True:
            # Not page by page, because the list changes while people work: each part begins behind the last id.
            behind = all_of(filtered("id", "greater", "Number", last))
            part = self._list({"filters": behind, "ordering": ["tasks:id"]})
            yield from self._marked(part, model_version)
            if len(part) < PAGE:
                return
            last = part[-1].id

    def task(self, task_id: int, model_version: str) -> ProjectTask | None:
        """Returns one task as it is now; None if it is gone."""
        listed = self._list({"selectedItems": {"all": False, "included": [task_id]}})
        return next(iter(self._marked(listed, model_version)), None)

    def post(self, task_id: int, prediction: dict[str, Any]) -> None:
        """Stores a prediction. Sends it once: after an error, use `task` to find out whether it arrived.

        Args:
            task_id: The predicted task.
            prediction: `model_version`, `score` and `result`, as `regions.prediction` builds them.

        Raises:
            GoneError: The task is gone.
            SourceError: Any other error.
        """
        with explained(f"task {task_id}"):
            self._client_once.predictions.create(task=task_id, project=self._number, **prediction)

    def shown_version(self) -> str:
        """Returns whose predictions Label Studio shows: a model version, the title of an ML backend, or "" for none."""
        with explained(f"project {self._number}"):
            return self._client.projects.get(id=self._number).model_version or ""

    def show(self, model_version: str) -> None:
        """Makes Label Studio show the predictions of a model version, and list open tasks by their scores.

        The list is a tab of the Data Manager. A tab of that name stays as it is: people may have changed it.
        """
        with explained(f"project {self._number}"):
            self._client.projects.update(id=self._number, model_version=model_version)
            tabs = self._client.views.list(project=self._number)
            if not any(isinstance(tab.data, dict) and tab.data.get("title") == TAB for tab in tabs):
                self._client_once.views.create(project=self._number, data=_tab())

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()
        self._http_once.close()

    def _marked(self, part: Collection[ListedTask], model_version: str) -> list[ProjectTask]:
        predicted = self._predicted([task.id for task in part if task.total_predictions], model_version)
        return [ProjectTask(task, task.id in predicted) for task in part]

    def _predicted(self, task_ids: list[int], model_version: str) -> set[int]:
        # Never an empty selection: Label Studio would return all tasks.
        if not task_ids:
            return set()
        filters = all_of(filtered("predictions_model_versions", "contains", "List", [model_version]))
        found = self._list({"selectedItems": {"all": False, "included": task_ids}, "filters": filters})
        return {task.id for task in found}

    def _list(self, query: dict[str, Any]) -> list[ListedTask]:
        with explained(f"project {self._number}"):
            return list_tasks(self._client, self._number, query).tasks


def _tab() -> dict[str, Any]:
    open_tasks = filtered("total_annotations", "equal", "Number", 0)
    hidden = [f"tasks:{column}" for column in _HIDDEN]
    return {
        "title": TAB,
        "ordering": ["tasks:predictions_score"],
        "filters": all_of(open_tasks),
        "hiddenColumns": {"explore": hidden, "labeling": hidden},
    }
