"""A Label Studio of one project, in memory, that answers its API as 1.23.2 was seen to."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from refcut_backend.label_studio.connection import Connection
from tests.support.recorded import LABEL_CONFIG

TOKEN = "0123456789abcdef0123456789abcdef01234567"


class LabelStudioApi:
    """Tasks and annotations of a project, and the webhooks that Label Studio would send about them.

    requests: paths that were asked for. fails_with: an HTTP status to answer everything with; fails_on: a path to
    answer with 500. images: files by the last
    part of their address. predictions: as they were posted, and lost_answers of them get an error although they are
    stored. shown_version: whose predictions are shown. tabs: of the Data Manager. created_at: of the project; None leaves
    it out.
    sent_images: those that were sent, and not only confirmed as unchanged.
    longest_page: number of tasks with masks above which an answer is of no use. sampling: order of the label stream.
    """

    def __init__(self, project_id: int = 7, token: str = TOKEN, created_at: str | None = None) -> None:
        self.project_id = project_id
        self.token = token
        self.created_at = created_at
        self.tasks: dict[int, dict[str, Any]] = {}
        self.annotations: dict[int, dict[str, Any]] = {}
        self.predictions: list[dict[str, Any]] = []
        self.tabs: list[dict[str, Any]] = []
        self.shown_version = "RefCut"
        self.label_config = LABEL_CONFIG
        self.sampling = "Sequential sampling"
        self.lost_answers = 0
        self.users = [{"id": 1, "email": "lead@example.com"}, {"id": 2, "email": "annotator@example.com"}]
        self.images: dict[str, bytes] = {}
        self.sent_images: list[str] = []
        self.requests: list[str] = []
        self.fails_with: int | None = None
        self.fails_on = ""
        self.longest_page: int | None = None
        self.url = ""
        self._ticks = itertools.count(1)

    @property
    def connection(self) -> Connection:
        return Connection(self.url, self.token)

    def add_task(self, task_id: int, image: str | None = None) -> None:
        self.tasks[task_id] = {"id": task_id, "data": {"image": image or f"/data/upload/{task_id}.png"}}
        self._touch(task_id)

    def annotate(
        self, annotation_id: int, task_id: int, *result: dict[str, Any], by: int = 1
    ) -> dict[str, Any]:
        """Makes or changes an annotation; returns the webhook about it."""
        if task_id not in self.tasks:
            self.add_task(task_id)
        action = "ANNOTATION_UPDATED" if annotation_id in self.annotations else "ANNOTATION_CREATED"
        self.annotations[annotation_id] = {
            "id": annotation_id,
            "task": task_id,
            "project": self.project_id,
            "result": list(result),
            "was_cancelled": False,
            "completed_by": by,
            "updated_by": by,
            "updated_at": self._now(),
        }
        self._touch(task_id)
        annotation, task = self.annotations[annotation_id], self.tasks[task_id]
        return self._webhook(action, annotation=dict(annotation), task=self._shown(task))

    def delete_annotation(self, annotation_id: int) -> dict[str, Any]:
        """Returns the webhook about it."""
        self._touch(self.annotations.pop(annotation_id)["task"])
        return self._webhook("ANNOTATIONS_DELETED", annotations=[{"id": annotation_id}])

    def delete_task(self, task_id: int) -> dict[str, Any]:
        """Returns the webhook about it."""
        del self.tasks[task_id]
        self.annotations = {number: a for number, a in self.annotations.items() if a["task"] != task_id}
        return self._webhook("TASKS_DELETED", tasks=[{"id": task_id}])

    def _webhook(self, action: str, **fields: Any) -> dict[str, Any]:
        project = {"id": self.project_id, "label_config": self.label_config} | self._created()
        return {"action": action, "project": project} | fields

    def _created(self) -> dict[str, str]:
        return {} if self.created_at is None else {"created_at": self.created_at}

    def _now(self) -> str:
        """Ten minutes later at every look, so that nothing lies in the overlap of two comparisons by chance."""
        time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=10 * next(self._ticks), microseconds=5)
        return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _touch(self, task_id: int) -> None:
        self.tasks[task_id]["updated_at"] = self._now()

    def answer(self, path: str, query: dict[str, str], token: str | None) -> tuple[int, Any]:
        """Status and JSON."""
        self.requests.append(path)
        if self.fails_with is not None:
            return self.fails_with, {"detail": "canary-in-the-body"}
        if path == self.fails_on:
            return 500, {}
        if token != f"Token {self.token}":
            return 401, {"detail": "Invalid token."}
        if path == f"/api/projects/{self.project_id}/":
            project = {"id": self.project_id, "title": "Cars", "model_version": self.shown_version}
            return 200, project | {"sampling": self.sampling} | self._created()
        name = query.get("filepath", path).rpartition("/")[2]
        if name in self.images:
            return 200, self.images[name]
        parts = path.strip("/").split("/")
        if path == "/api/dm/views/" and query.get("project") == str(self.project_id):
            return 200, self.tabs
        if parts == ["api", "users"]:
            return 200, self.users
        if parts == ["api", "tasks"] and query.get("project") == str(self.project_id):
            assert query["review"] == "true", "Label Studio would ask the ML backend for predictions"
            return 200, self._list(query)
        if parts[:2] == ["api", "tasks"] and parts[3:] == ["annotations"] and int(parts[2]) in self.tasks:
            shown = [a for a in self.annotations.values() if a["task"] == int(parts[2])]
            return 200, [a for a in shown if not a["was_cancelled"]]
        return 404, {"detail": "No match for the given query."}

    def receive(self, method: str, path: str, body: Any, token: str | None) -> tuple[int, Any]:
        """Status and JSON for what changes something."""
        self.requests.append(path)
        if token != f"Token {self.token}":
            return 401, {"detail": "Invalid token."}
        if method == "PATCH" and path == f"/api/projects/{self.project_id}/":
            self.shown_version = body["model_version"]
            return 200, {"id": self.project_id, "title": "Cars", "model_version": self.shown_version}
        if method == "POST" and path == "/api/dm/views/" and body["project"] == self.project_id:
            self.tabs.append({"id": len(self.tabs) + 1} | body)
            return 201, self.tabs[-1]
        annotation_id = path.removeprefix("/api/annotations/").strip("/")
        if method == "PATCH" and annotation_id.isdigit() and int(annotation_id) in self.annotations:
            annotation = self.annotations[int(annotation_id)]
            annotation |= body | {"updated_at": self._now()}
            self._touch(annotation["task"])
            return 200, annotation
        if path != "/api/predictions/" or body["task"] not in self.tasks:
            return 404, {"detail": "No match for the given query."}
        self.predictions.append(body)
        if self.lost_answers:
            self.lost_answers -= 1
            return 502, {}
        return 201, {"id": len(self.predictions)} | body

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        asked = json.loads(query["query"])
        included = asked.get("selectedItems", {}).get("included")
        rows = [task for number, task in self.tasks.items() if not included or number in included]
        for item in asked.get("filters", {}).get("items", []):
            rows = [row for row in rows if self._passes(row, item)]
        field = asked.get("ordering", ["tasks:id"])[0]
        rows.sort(
            key=lambda row: row[field.removeprefix("-").removeprefix("tasks:")], reverse=field[0] == "-"
        )
        start = (int(query.get("page", 1)) - 1) * int(query["page_size"])
        page = rows[start : start + int(query["page_size"])]
        ids = {row["id"] for row in rows}
        annotated = sum(a["task"] in ids and not a["was_cancelled"] for a in self.annotations.values())
        totals = {"total": len(rows), "total_annotations": annotated, "total_predictions": 0}
        if query["fields"] == "task_only":
            return totals | {"tasks": [self._shown(row) for row in page]}
        if self.longest_page is not None and len(page) > self.longest_page:
            return {"an answer": "that is too long"}
        return totals | {"tasks": [self._shown(row) | {"annotations": self._of(row)} for row in page]}

    def _of(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [a for a in self.annotations.values() if a["task"] == row["id"]]

    def _passes(self, row: dict[str, Any], item: dict[str, Any]) -> bool:
        match item["filter"], item["operator"]:
            case "filter:tasks:id", "greater":
                return bool(row["id"] > float(item["value"]))
            case "filter:tasks:id", "less_or_equal":
                return bool(row["id"] <= item["value"])
            case "filter:tasks:updated_at", "greater_or_equal":
                datetime.strptime(item["value"], "%Y-%m-%dT%H:%M:%S.%fZ")
                return bool(row["updated_at"] >= item["value"])
            case "filter:tasks:predictions_model_versions", "contains":
                (version,) = item["value"]
                return any(version in p["model_version"] for p in self._predictions_of(row))
            case "filter:tasks:total_annotations", "greater":
                return bool(self._shown(row)["total_annotations"] > item["value"])
            case "filter:tasks:total_annotations", "equal":
                return bool(self._shown(row)["total_annotations"] == item["value"])
            case "filter:tasks:cancelled_annotations", "equal":
                return bool(self._shown(row)["cancelled_annotations"] == item["value"])
        raise AssertionError(f"a filter that was not tried with Label Studio: {item}")

    def _shown(self, row: dict[str, Any]) -> dict[str, Any]:
        mine = self._of(row)
        skipped = sum(a["was_cancelled"] for a in mine)
        counts = {"total_annotations": len(mine) - skipped, "cancelled_annotations": skipped}
        return row | counts | {"total_predictions": len(self._predictions_of(row))}

    def _predictions_of(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [prediction for prediction in list(self.predictions) if prediction["task"] == row["id"]]


@contextmanager
def serving(api: LabelStudioApi) -> Iterator[LabelStudioApi]:
    """The API on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, answer = api.answer(parts.path, query, self.headers.get("Authorization"))
            if isinstance(answer, bytes):
                self._send_image(answer, query.get("filepath", parts.path).rpartition("/")[2])
            else:
                self._send(status, answer)

        def _send_image(self, data: bytes, name: str) -> None:
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            is_known = self.headers.get("If-None-Match") == etag
            self.send_response(304 if is_known else 200)
            self.send_header("ETag", etag)
            self.send_header("Content-Length", "0" if is_known else str(len(data)))
            self.end_headers()
            if not is_known:
                api.sent_images.append(name)
                self.wfile.write(data)

        def do_POST(self) -> None:
            self._receive()

        def do_PATCH(self) -> None:
            self._receive()

        def _receive(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(*api.receive(self.command, self.path, body, self.headers.get("Authorization")))

        def _send(self, status: int, answer: Any) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
