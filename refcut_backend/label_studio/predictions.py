"""A project's tasks that lack a prediction, and where predictions go, over Label Studio's API.

Tried with Label Studio 1.23. Its list of tasks does not say which model made a task's predictions, but can be filtered
by that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from refcut_backend.errors import TokenError
from refcut_backend.label_studio.client import READ_LIMIT_S, connect, open_http
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import ListedTask
from refcut_backend.label_studio.tasks import PAGE, explained, filtered, list_tasks


@dataclass(frozen=True)
class ProjectTask:
    """A task, and whether it has a prediction of the model version that was asked about."""

    task: ListedTask
    is_predicted: bool

    @property
    def is_annotated(self) -> bool:
        """Whether somebody has submitted or skipped it."""
        return bool(self.task.total_annotations or self.task.cancelled_annotations)

    @property
    def is_open(self) -> bool:
        """Whether a prediction is of use to anybody."""
        return not (self.is_annotated or self.is_predicted)


class ProjectPredictions:
    """One project's. Every method raises SourceError that says what to do. May be used from several threads."""

    def __init__(self, project_id: int, connection: Connection) -> None:
        """Raises TokenError when there is no token."""
        if not connection.access_token:
            raise TokenError("there is no token for Label Studio", hint="set REFCUT_ACCESS_TOKEN")
        self._project_id = project_id
        self._http = open_http(connection, READ_LIMIT_S)
        self._client = connect(connection, http=self._http)
        self._http_once = open_http(connection, READ_LIMIT_S, tries_again=False)
        self._client_once = connect(connection, http=self._http_once)

    def tasks(self, model_version: str) -> Iterator[ProjectTask]:
        """All tasks, in the order of their ids, read part by part while they are worked on."""
        last = 0
        while True:
            # Page by page a list would move under our hands: each part begins behind the last id.
            items = [filtered("id", "greater", "Number", last)]
            query = {"filters": {"conjunction": "and", "items": items}, "ordering": ["tasks:id"]}
            part = self._list(query)
            yield from self._marked(part, model_version)
            if len(part) < PAGE:
                return
            last = part[-1].id

    def task(self, task_id: int, model_version: str) -> ProjectTask | None:
        """One task as it is now; None when it is gone."""
        listed = self._list({"selectedItems": {"all": False, "included": [task_id]}})
        return next(iter(self._marked(listed, model_version)), None)

    def post(self, task_id: int, prediction: dict[str, Any]) -> None:
        """Stores a prediction (model_version, score, result). Raises GoneError when the task is gone.

        Sent once: after another error, ask whether it has arrived.
        """
        with explained(f"task {task_id}"):
            self._client_once.predictions.create(task=task_id, project=self._project_id, **prediction)

    def shown_version(self) -> str:
        """Whose predictions Label Studio shows: a model version, or the title of an ML backend, "" = nobody's."""
        with explained(f"project {self._project_id}"):
            return self._client.projects.get(id=self._project_id).model_version or ""

    def show(self, model_version: str) -> None:
        """Has Label Studio show the predictions of a model version, and their scores in its list of tasks."""
        with explained(f"project {self._project_id}"):
            self._client.projects.update(id=self._project_id, model_version=model_version)

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()
        self._http_once.close()

    def _marked(self, part: Collection[ListedTask], model_version: str) -> list[ProjectTask]:
        predicted = self._predicted([task.id for task in part if task.total_predictions], model_version)
        return [ProjectTask(task, task.id in predicted) for task in part]

    def _predicted(self, task_ids: list[int], model_version: str) -> set[int]:
        # Never an empty selection: for Label Studio that means all tasks.
        if not task_ids:
            return set()
        items = [filtered("predictions_model_versions", "contains", "List", [model_version])]
        filters = {"conjunction": "and", "items": items}
        found = self._list({"selectedItems": {"all": False, "included": task_ids}, "filters": filters})
        return {task.id for task in found}

    def _list(self, query: dict[str, Any]) -> list[ListedTask]:
        with explained(f"project {self._project_id}"):
            return list_tasks(self._client, self._project_id, query)
