"""Starts a real Label Studio for a test and talks to its REST API as the project owner.

`LabelStudioServer` is the process, `LabelStudioProject` one project on it. Nothing here knows the product:
the ML backend is only an address. Facts about Label Studio 1.23 that shaped this module stand next to the
lines they explain.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from label_studio_sdk.converter import brush
from numpy.typing import NDArray

USER = "owner@example.com"
PASSWORD = "end-to-end-password"
TOKEN = "e2e0000000000000000000000000000000000e2e"

START_LIMIT_S = 600.0  # the first start runs all migrations: 40 s on idle cores, 220 s on busy ones
STOP_LIMIT_S = 15.0
REQUEST_LIMIT_S = 60.0  # connecting a backend waits for several of its answers


class LabelStudioError(RuntimeError):
    """Label Studio did not start, or refused a request; the message carries what it said."""


class LabelStudioServer:
    """One headless Label Studio on 127.0.0.1, for use in a `with` statement.

    `executable` is the `label-studio` command of its own virtual environment; `data_dir` receives the
    database, the uploads and `label_studio.log` and may be reused: a second start on it takes seconds.
    """

    def __init__(self, executable: Path, data_dir: Path, port: int) -> None:
        self.executable = executable
        self.data_dir = data_dir
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = data_dir / "label_studio.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return once it answers; raises LabelStudioError with the end of its log."""
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                raise LabelStudioError(f"port {self.port} is taken, so answers would come from a stranger")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                start_new_session=True,  # own process group, so that stop() reaches the children too
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and all its children; harmless when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT_S)
        # Also after a clean exit of the leader: a child may have outlived it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _command(self) -> list[str]:
        owner = ["--username", USER, "--password", PASSWORD, "--user-token", TOKEN]
        place = ["--internal-host", "127.0.0.1", "--port", str(self.port)]
        start = [str(self.executable), "start", "--init", "--no-browser", "--enable-legacy-api-token"]
        return [*start, *owner, *place]

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LABEL_STUDIO_", "HEARTEX_"))}
        return inherited | {
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir),
            "LABEL_STUDIO_HOST": self.url,  # becomes `hostname` in /setup
            # Both are needed for a backend on a loopback or private address: the first lets it be
            # connected, the second lets Label Studio create the webhook to it.
            "ML_BLOCK_LOCAL_IP": "false",
            "SSRF_PROTECTION_ENABLED": "false",
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            # Nothing may call out: no analytics, no error reports, no flags or version from the net.
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "FEATURE_FLAGS_OFFLINE": "true",
        }

    def _wait_until_up(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise LabelStudioError(f"Label Studio ended at once\n{self._log_tail()}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=5.0, trust_env=False).is_success:
                    return
            time.sleep(0.3)
        raise LabelStudioError(f"Label Studio did not answer within {START_LIMIT_S} s\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-3000:]


@dataclass(frozen=True)
class BrushRegion:
    """A mask as an annotator would have painted it; `role` is the per-region choice, if any."""

    id: str
    label: str
    mask_hw: NDArray[np.bool_]
    role: str | None = None

    def results(self) -> list[dict[str, Any]]:
        """The one or two results that Label Studio stores for the region; two share one id."""
        height, width = self.mask_hw.shape
        rgba = np.repeat(self.mask_hw.ravel().astype(np.uint8) * 255, 4)
        rle = [int(byte) for byte in brush.encode_rle(rgba)]
        common = {"id": self.id, "to_name": "image", "origin": "manual", "image_rotation": 0}
        common |= {"original_width": width, "original_height": height}
        value = {"format": "rle", "rle": rle}
        region = common | {"from_name": "brush", "type": "brushlabels"}
        results = [region | {"value": value | {"brushlabels": [self.label]}}]
        if self.role is not None:
            # The editor really repeats the whole RLE here.
            choice = common | {"from_name": "refcut_role", "type": "choices"}
            results.append(choice | {"value": value | {"choices": [self.role]}})
        return results


class LabelStudioProject:
    """One project and its tasks, annotations and ML backend, over the REST API."""

    def __init__(self, base_url: str, project_id: int, token: str = TOKEN) -> None:
        self.id = project_id
        self._http = _client(base_url, token)

    @classmethod
    def create(cls, base_url: str, title: str, label_config: str, token: str = TOKEN) -> Self:
        """Make an empty project with this label config."""
        with _client(base_url, token) as http:
            fields = {"title": title, "label_config": label_config}
            return cls(base_url, int(_answer(http.post("/api/projects/", json=fields))["id"]), token)

    def close(self) -> None:
        """Close the connections to Label Studio; the project stays."""
        self._http.close()

    def upload_images(self, paths: Sequence[Path]) -> list[int]:
        """Upload files as the import dialog does; returns the task ids, in the order of `paths`.

        The tasks refer to /data/upload/..., which Label Studio serves to authenticated callers only.
        """
        known = {task["id"] for task in self.tasks()}
        for path in paths:  # one file a request, so that ids follow the order of the paths
            files = {"file": (path.name, path.read_bytes())}
            _answer(self._http.post(f"/api/projects/{self.id}/import", files=files))
        return sorted(task["id"] for task in self.tasks() if task["id"] not in known)

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks of the project."""
        query: dict[str, str | int] = {"project": self.id, "fields": "all", "page_size": 1000}
        answer = _answer(self._http.get("/api/tasks/", params=query))
        return list(answer["tasks"])

    def connect_backend(self, url: str, title: str = "RefCut", user: str = "", password: str = "") -> int:
        """Attach an interactive ML backend (with HTTP Basic if `user` is given); returns its id."""
        fields: dict[str, Any] = {"project": self.id, "url": url, "title": title, "is_interactive": True}
        if user:
            fields |= {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}
        return int(_answer(self._http.post("/api/ml/", json=fields))["id"])

    def annotate(self, task_id: int, regions: Iterable[BrushRegion]) -> int:
        """Submit an annotation with these regions; returns its id. Fires ANNOTATION_CREATED."""
        body = {"result": _results(regions)}
        return int(_answer(self._http.post(f"/api/tasks/{task_id}/annotations/", json=body))["id"])

    def annotations(self, task_id: int) -> list[dict[str, Any]]:
        """The submitted annotations of a task, as Label Studio stores them."""
        return list(_answer(self._http.get(f"/api/tasks/{task_id}/annotations/")))

    def update_annotation(self, annotation_id: int, regions: Iterable[BrushRegion]) -> None:
        """Replace all regions of an annotation. Fires ANNOTATION_UPDATED."""
        body = {"result": _results(regions)}
        _answer(self._http.patch(f"/api/annotations/{annotation_id}/", json=body))

    def delete_annotation(self, annotation_id: int) -> None:
        """Delete an annotation. Fires ANNOTATIONS_DELETED, which names the id and no task."""
        _answer(self._http.delete(f"/api/annotations/{annotation_id}/"))


def _results(regions: Iterable[BrushRegion]) -> list[dict[str, Any]]:
    return [result for region in regions for result in region.results()]


def _client(base_url: str, token: str) -> httpx.Client:
    # trust_env=False: a proxy from the environment must not stand between a test and this machine
    headers = {"Authorization": f"Token {token}"}
    return httpx.Client(base_url=base_url, headers=headers, timeout=REQUEST_LIMIT_S, trust_env=False)


def _answer(response: httpx.Response) -> Any:
    """The JSON of a successful answer (None when empty); otherwise what Label Studio complained about."""
    if response.is_error:
        raise LabelStudioError(f"{response.request.url.path}: {response.status_code} {response.text[:500]}")
    return response.json() if response.content else None
