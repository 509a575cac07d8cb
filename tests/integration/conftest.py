"""One running backend, with the model that ships, for the files whose tests need nothing but that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.recorded import REPOSITORY
from tests.support.running_backend import RunningBackend

TOKEN = "0123456789abcdef0123456789abcdef01234567"
DEMO = REPOSITORY / "label_studio_demo"


class PhotoServer(BaseHTTPRequestHandler):
    """Serves the demo photographs as Label Studio serves uploads: with the token or not at all."""

    def do_GET(self) -> None:
        name = Path(parse_qs(urlsplit(self.path).query).get("filepath", [self.path])[0]).name
        if self.headers.get("Authorization") != f"Token {TOKEN}":
            self.send_error(401)
            return
        if not (DEMO / name).is_file():
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write((DEMO / name).read_bytes())

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def photographs() -> Iterator[str]:
    """Address of a Label Studio that serves the demo photographs and nothing else."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), PhotoServer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def shared_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """Files that use it stand in `parallel_run.RUNNING_BACKEND`."""
    backend = RunningBackend(tmp_path_factory.mktemp("state"))
    yield backend
    backend.stop()


@pytest.fixture
def running(shared_backend: RunningBackend) -> RunningBackend:
    """Each test connects a project of its own."""
    shared_backend.start_if_stopped()
    return shared_backend
