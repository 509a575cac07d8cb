"""A real Label Studio for the demo and the tests: starts the server, and does over its API what a team lead does.

`LabelStudioServer` is the process, `LabelStudioProject` one project in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from refcut_backend.api.auth import SECRET_HEADER
from refcut_backend.cli.empty_database import (
    DATABASE_NAME,
    copy_database,
    empty_database,
    offline_environment,
)
from refcut_backend.errors import ConfigError
from refcut_backend.label_studio.regions import BrushRegion
from refcut_backend.system.child_processes import start_bound, stop_within

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

REQUEST_LIMIT_S = 60.0
"""Seconds per request. Label Studio sends several requests to a backend while it is being connected."""


class LabelStudioProject:
    """One project of a label config with the controls `brush`, `click` and `refcut_role`."""

    def __init__(self, base_url: str, project_id: int, token: str) -> None:
        """Connect to a project.

        Args:
            base_url: URL of Label Studio.
            project_id: The project's id.
            token: A legacy token of its owner.
        """
        self.id = project_id
        self._http, self._api = _connect(base_url, token)

    @classmethod
    def create(cls, base_url: str, title: str, label_config: str, token: str) -> Self:
        """Create an empty project.

        Args:
            base_url: URL of Label Studio.
            title: Title of the project.
            label_config: Its label config, as XML.
            token: A legacy token of its owner.
        """
        http, api = _connect(base_url, token)
        with http:
            project = api.projects.create(title=title, label_config=label_config)
        return cls(base_url, int(project.id), token)

    @staticmethod
    def titled(base_url: str, token: str) -> dict[str, int]:
        """Title to project id of all projects."""
        http, api = _connect(base_url, token)
        with http:
            return {str(project.title): int(project.id) for project in api.projects.list()}

    def close(self) -> None:
        """Close the connections to Label Studio; the project stays."""
        self._http.close()

    def task_ids(self) -> list[int]:
        """Ids of all tasks, oldest first."""
        return sorted(int(task.id) for task in self._api.tasks.list(project=self.id, fields="task_only"))

    def upload_images(self, paths: Sequence[Path]) -> list[int]:
        """Upload files as the import dialog does.

        The tasks refer to /data/upload/..., which Label Studio serves only with a token.

        Returns:
            The task ids, in the order of `paths`.
        """
        known = set(self.task_ids())
        for path in paths:  # one file per request, so that the ids have the order of the paths
            answer = self._http.post(
                f"/api/projects/{self.id}/import", files={"file": (path.name, path.read_bytes())}
            )
            answer.raise_for_status()
        return [task for task in self.task_ids() if task not in known]

    def connect_backend(
        self, url: str, title: str = "RefCut", user: str = "", password: str = "", webhook_secret: str = ""
    ) -> int:
        """Attach an interactive ML backend. One that is attached gets this title, password and secret.

        Args:
            url: URL of the backend as Label Studio reaches it.
            title: Its title in Label Studio.
            user: User name for HTTP Basic; empty for none.
            password: Password for HTTP Basic.
            webhook_secret: What the backend expects in webhooks; empty for nothing.

        Returns:
            The id of the backend.
        """
        given: dict[str, Any] = {"project": self.id, "url": url, "title": title, "is_interactive": True}
        given["auth_method"] = "BASIC_AUTH" if user else "NONE"
        if user:
            given |= {"basic_auth_user": user, "basic_auth_pass": password}
        known = self.backends().get(url)
        backend = self._api.ml.create(**given) if known is None else self._api.ml.update(known, **given)
        if webhook_secret:
            self._give_secret(url, webhook_secret)
        return int(backend.id)

    def _give_secret(self, backend_url: str, secret: str) -> None:
        """Has the webhooks to a backend send its secret: Label Studio makes them without."""
        hooks = self._http.get("/api/webhooks/", params={"project": self.id}).raise_for_status().json()
        for hook in hooks:
            if hook["url"].startswith(f"{backend_url}/"):
                headers = {**(hook.get("headers") or {}), SECRET_HEADER: secret}
                self._http.patch(f"/api/webhooks/{hook['id']}/", json={"headers": headers}).raise_for_status()

    def backends(self) -> dict[str, int]:
        """URL to id of the attached ML backends."""
        return {str(backend.url): int(backend.id) for backend in self._api.ml.list(project=self.id)}

    def annotate(self, task_id: int, regions: Iterable[BrushRegion]) -> int:
        """Submit an annotation with these regions, which sends ANNOTATION_CREATED. Returns its id."""
        return int(self._api.annotations.create(id=task_id, result=_results(regions)).id)

    def submit(self, task_id: int, results: list[dict[str, Any]]) -> int:
        """Submit an annotation with results in the form of the editor, such as accepted masks. Returns its id."""
        return int(self._api.annotations.create(id=task_id, result=results).id)

    def task(self, task_id: int) -> dict[str, Any]:
        """A task in the form of Label Studio's API."""
        return dict(self._http.get(f"/api/tasks/{task_id}/").raise_for_status().json())

    def start_training(self) -> None:
        """Press the button "Start training" of each attached backend."""
        for backend_id in self.backends().values():
            self._http.post(f"/api/ml/{backend_id}/train", json={}).raise_for_status()

    def annotations(self, task_id: int) -> list[dict[str, Any]]:
        """The submitted annotations of a task, in the form of Label Studio's API."""
        answer = self._http.get(f"/api/tasks/{task_id}/annotations/")
        return list(answer.raise_for_status().json())


def _results(regions: Iterable[BrushRegion]) -> list[dict[str, Any]]:
    return [result for region in regions for result in region.results()]


def _connect(base_url: str, token: str) -> tuple[httpx.Client, LabelStudio]:
    """The SDK's client, and the HTTP client under it for what the SDK has no call for (uploading files)."""
    from label_studio_sdk import LabelStudio  # takes a second, which passes while the servers start

    # trust_env=False: a proxy from the environment must not stand between two processes of one machine
    headers = {"Authorization": f"Token {token}"}
    http = httpx.Client(base_url=base_url, headers=headers, timeout=REQUEST_LIMIT_S, trust_env=False)
    return http, LabelStudio(base_url=base_url, api_key=token, httpx_client=http)


START_LIMIT_S = 600.0  # a first start without a kept database runs all migrations: up to 220 s on busy cores
STOP_LIMIT_S = 15.0


@dataclass(frozen=True)
class Owner:
    """The account that Label Studio is started with; `token` is a legacy token of 40 characters."""

    user: str
    password: str = field(repr=False)
    token: str = field(repr=False)


class LabelStudioServer:
    """One headless Label Studio 1.23 on 127.0.0.1, for use in a `with` statement."""

    def __init__(self, executable: Path, data_dir: Path, port: int, owner: Owner) -> None:
        """Prepare a server; `start` or `with` starts it.

        Args:
            executable: The `label-studio` command in its own virtual environment.
            data_dir: Gets the database, the uploads and `label_studio.log`. May be reused; the next start is faster.
            port: Port on 127.0.0.1.
            owner: The account to create at the first start.
        """
        self.executable = executable
        self.data_dir = data_dir
        self.port = port
        self.owner = owner
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

    def start(self, check: Callable[[], None] = lambda: None) -> None:
        """Start the server and wait until it answers.

        A new data folder gets a copy of the empty database that is kept with the program, which is made if it is missing.

        Args:
            check: Called all the time while this waits; what it raises ends the start.

        Raises:
            ConfigError: If the server does not start. The message has the end of its log.
        """
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                raise ConfigError(
                    f"port {self.port} for Label Studio is taken",
                    hint="stop what uses it, or choose another one with --label-studio-port",
                )
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._give_database(check)
        with self.log_path.open("ab") as log:
            self._process = start_bound(
                self._command(),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
            )
        try:
            self._wait_until_up(check)
        except BaseException:
            self.stop()
            raise

    def _give_database(self, check: Callable[[], None]) -> None:
        if not (self.data_dir / DATABASE_NAME).exists() and (path := empty_database(self.executable, check)):
            copy_database(path, self.data_dir)

    def stop(self) -> None:
        """Stop the server and all its children, if it is running."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        stop_within(process, STOP_LIMIT_S)

    def _command(self) -> list[str]:
        address = ["--internal-host", "127.0.0.1", "--port", str(self.port)]
        # Without --init, which would also create an empty project; the account is created either way.
        return [str(self.executable), "start", "--no-browser", "--enable-legacy-api-token", *address]

    def _environment(self) -> dict[str, str]:
        return offline_environment() | {
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir),
            "LABEL_STUDIO_HOST": self.url,  # becomes `hostname` in /setup
            # Both are needed for a backend on a loopback or private address: the first lets it be
            # connected, the second lets Label Studio create the webhook to it.
            "ML_BLOCK_LOCAL_IP": "false",
            "SSRF_PROTECTION_ENABLED": "false",
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            # In the environment and not among the arguments, which every user of the machine can list.
            "LABEL_STUDIO_USERNAME": self.owner.user,
            "LABEL_STUDIO_PASSWORD": self.owner.password,
            "LABEL_STUDIO_USER_TOKEN": self.owner.token,
        }

    def _wait_until_up(self, check: Callable[[], None]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            check()
            if self._process.poll() is not None:
                raise ConfigError(f"Label Studio ended at once\n{log_tail(self.log_path)}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=5.0, trust_env=False).is_success:
                    return
            time.sleep(0.3)
        raise ConfigError(f"Label Studio did not answer within {START_LIMIT_S} s\n{log_tail(self.log_path)}")


def log_tail(path: Path) -> str:
    """The end of a log file."""
    return path.read_text(errors="replace")[-3000:]
