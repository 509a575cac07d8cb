"""What `refcut serve` starts, in this process; its clicks are kept and no worker answers them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from fastapi.testclient import TestClient
from redis import Redis

from refcut_backend.api.app import create_app
from refcut_backend.database.engine import open_database
from refcut_backend.errors import ClickTimeoutError
from refcut_backend.queue.click_queue import ClickQueue
from refcut_backend.queue.messages import ClickAnswer, ClickJob
from refcut_backend.references.registry import References
from refcut_backend.settings import Settings
from refcut_backend.wiring import wire_backend
from tests.support.label_studio_api import LabelStudioApi
from tests.support.recorded import LABEL_CONFIG, click_result

WAIT_LIMIT_S = 60
CREATED = "1795342440"


@dataclass
class Web:
    """What `refcut serve` starts, and what its clicks ask of workers."""

    client: TestClient
    references: References
    jobs: list[ClickJob]

    def references_of_a_click(
        self, label: str = "Door", project: int = 7, created: str = CREATED
    ) -> tuple[int, ...]:
        """Ids of the references that a click of the label takes along."""
        body = {
            "tasks": [{"id": 99, "data": {"image": "/data/upload/99.png"}}],
            "project": f"{project}.{created}",
            "label_config": LABEL_CONFIG,
            "params": {"context": {"result": [click_result("a", 10, 20, label)]}},
        }
        self.client.post("/predict", json=body).raise_for_status()
        return self.jobs[-1].reference_ids


@contextmanager
def web_process(folder: Path, redis: Redis, **changes: Any) -> Iterator[Web]:
    """Every use is a restart."""
    settings = Settings(state_dir=folder, **({"reconcile_interval_s": 0} | changes))
    engine = open_database(settings.database)
    jobs: list[ClickJob] = []

    def keep(_queue: ClickQueue, job: ClickJob) -> ClickAnswer:
        jobs.append(job)
        raise ClickTimeoutError("no worker")

    with (
        mock.patch.object(ClickQueue, "ask", keep),
        TestClient(create_app(wire_backend(settings, redis), 2**22)) as client,
    ):
        yield Web(client, References(engine), jobs)
    engine.dispose()


def setup_body(
    api: LabelStudioApi,
    extra_params: Any = None,
    label_config: str = LABEL_CONFIG,
    created: str = CREATED,
) -> dict[str, Any]:
    """As Label Studio sends it."""
    body = {"project": f"{api.project_id}.{created}", "schema": label_config, "hostname": api.url}
    return body | {"access_token": api.token, "extra_params": extra_params}


def wait_until(is_so: Callable[[], object]) -> None:
    """Fail if it does not become true."""
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
