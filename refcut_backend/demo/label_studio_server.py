"""A headless Label Studio as a child process, with the settings that a backend on this machine needs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from refcut_backend.errors import ConfigError

START_LIMIT_S = 600.0  # the first start runs all migrations: 40 s on idle cores, 220 s on busy ones
STOP_LIMIT_S = 15.0


@dataclass(frozen=True)
class Owner:
    """The account that Label Studio is started with. token: a legacy token of 40 characters."""

    user: str
    password: str = field(repr=False)
    token: str = field(repr=False)


class LabelStudioServer:
    """One headless Label Studio 1.23 on 127.0.0.1, for use in a `with` statement.

    `executable` is the `label-studio` command of its own virtual environment; `data_dir` receives the
    database, the uploads and `label_studio.log` and may be reused: a second start on it takes seconds.
    """

    def __init__(self, executable: Path, data_dir: Path, port: int, owner: Owner) -> None:
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

    def start(self) -> None:
        """Start the server and return once it answers; raises ConfigError with the end of its log."""
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                raise ConfigError(
                    f"port {self.port} for Label Studio is taken", hint="stop what uses it, or choose another"
                )
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
        place = ["--internal-host", "127.0.0.1", "--port", str(self.port)]
        # Without --init, which would make an empty project of its own; the account is made either way.
        return [str(self.executable), "start", "--no-browser", "--enable-legacy-api-token", *place]

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
            # In the environment and not among the arguments, which every user of the machine can list.
            "LABEL_STUDIO_USERNAME": self.owner.user,
            "LABEL_STUDIO_PASSWORD": self.owner.password,
            "LABEL_STUDIO_USER_TOKEN": self.owner.token,
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
                raise ConfigError(f"Label Studio ended at once\n{self._log_tail()}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=5.0, trust_env=False).is_success:
                    return
            time.sleep(0.3)
        raise ConfigError(f"Label Studio did not answer within {START_LIMIT_S} s\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-3000:]
