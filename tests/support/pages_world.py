"""The pages over HTTP for a real browser: a server on fakes, with two projects of a fake Label Studio."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray

from refcut_backend.api.app import create_app
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.payloads import Webhook
from refcut_backend.playground import demo
from refcut_backend.wiring import Wiring
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.fake_wiring import PROJECTS, FakeQueue, wiring_on
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.recorded import LABEL_CONFIG, brush_result
from tests.support.registry import marked
from tests.support.running_backend import free_port
from tests.support.web_process import WAIT_LIMIT_S

HOSTILE_LABEL = "<img src=x onerror=alert(1)>\"&'</script>"
CONFIG = LABEL_CONFIG.replace(
    '<Label value="Light" background="#ff7f0e"/>',
    '<Label value="Light" background="#ff7f0e"/>'
    '<Label value="&lt;img src=x onerror=alert(1)&gt;&quot;&amp;&apos;&lt;/script&gt;"/>',
)
CAR, OTHER_CAR = "car_parts_te66.jpg", "car_parts_te85.jpg"


@dataclass
class PagesWorld:
    """The server, what is behind it, and its address."""

    wiring: Wiring
    queue: FakeQueue
    cars: LabelStudioApi
    others: LabelStudioApi
    url: str

    def annotate(
        self, api: LabelStudioApi, annotation_id: int, task_id: int, photograph: str, *labels: str
    ) -> None:
        """Submits the parts of a demo photograph, those of `labels` marked as references. A webhook reports it."""
        api.add_task(task_id, f"/data/upload/{photograph}")
        api.images[photograph] = (demo.PHOTOGRAPHS / photograph).read_bytes()
        result: list[dict[str, Any]] = []
        for number, label in enumerate(labels):
            part = {"Hood": "Hood", "Door": "Front door", "Light": "Front light"}.get(label, "Wheel")
            region = brush_result(f"r{number}", label, part_mask(photograph, part))
            result += [region, marked(region)]
        self.report(api.annotate(annotation_id, task_id, *result))

    def report(self, webhook: dict[str, Any]) -> None:
        """Applies a webhook."""
        self.wiring.follower.apply(Webhook.model_validate(webhook))


def part_mask(photograph: str, part: str) -> NDArray[np.bool_]:
    """A part of a demo photograph as (H, W)."""
    return demo.part(photograph, part).positive_hw


@contextmanager
def pages_world(folder: Path) -> Iterator[PagesWorld]:
    """A server with the projects 7 (references of three labels) and 3 (none)."""
    queue = FakeQueue()
    with ExitStack() as stack:
        cars = stack.enter_context(serving(LabelStudioApi(7)))
        others = stack.enter_context(serving(LabelStudioApi(3)))
        wiring = stack.enter_context(wiring_on(folder, queue))
        for api in (cars, others):
            api.label_config = CONFIG
            wiring.projects.remember(api.project_id, api.connection, CONFIG, PROJECTS[api.project_id])
        app = create_app(wiring, 40 * LIMIT_BYTES)
        world = PagesWorld(wiring, queue, cars, others, stack.enter_context(_served(app)))
        world.annotate(cars, 40, 12, CAR, "Wheel", "Hood")
        world.annotate(cars, 41, 13, OTHER_CAR, "Wheel", HOSTILE_LABEL)
        hw = part_mask(CAR, "Wheel").shape
        queue.answer = queue.answer.__class__(
            width=hw[1], height=hw[0], rle=brush_rle.encode(part_mask(CAR, "Wheel")), score=0.9
        )
        yield world


@contextmanager
def _served(app: Any) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + WAIT_LIMIT_S
        while not server.started:
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
