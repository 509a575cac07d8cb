"""A Label Studio that answers what a test sets, for the few calls that the doctor makes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.support.recorded import REPOSITORY

TOKEN = "0123456789abcdef0123456789abcdef01234567"
BACKEND = "http://127.0.0.1:9090"
PHOTOGRAPH = REPOSITORY / "label_studio_demo" / "car_parts_te66.jpg"


def healthy() -> dict[str, Any]:
    """Path to answer of a Label Studio in which all is well."""
    return {
        "/api/current-user/whoami": {"id": 1, "username": "lead", "email": "lead@example.com"},
        "/api/ml": [{"id": 1, "project": 7, "url": BACKEND, "is_interactive": True, "state": "CO"}],
        "/api/webhooks": [{"id": 1, "project": 7, "url": f"{BACKEND}/webhook", "is_active": True}],
        "/api/projects/7": {"id": 7, "title": "Cars"},
        "/api/tasks": {"total": 1, "tasks": [{"id": 3, "data": {"image": "/data/upload/7/te66.jpg"}}]},
        "/data/upload/7/te66.jpg": PHOTOGRAPH.read_bytes(),
    }


@contextmanager
def fake_label_studio(answers: dict[str, Any], on_change: Callable[[], int] = lambda: 200) -> Iterator[str]:
    """Runs it; yields its address. An answer that is an int is a status, bytes are a file, the rest is JSON.

    on_change: called when the project is changed; returns the status.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert body == {"title": "Cars"}, "nothing of the project changes"
            status = on_change()
            if status != 200:
                self.send_error(status)
                return
            self.do_GET()

        def do_GET(self) -> None:
            answer = answers.get(urlsplit(self.path).path.rstrip("/"), 404)
            if self.headers.get("Authorization") != f"Token {TOKEN}":
                answer = 401
            if isinstance(answer, int):
                self.send_error(answer)
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
