"""What a task's existing masks add to a click: `python -m benchmarks.existing_masks [--masks N] [--rounds N]`.

Milliseconds of processor time that the web process takes for one click, without the worker (it answers at once), on a
task with no mask, and on one whose draft has N brush masks. Medians, interleaved.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fastapi.testclient import TestClient

from refcut_backend.answer_click import AnswerRules, ClickService
from refcut_backend.click_memory import ClickMemory
from refcut_backend.core import brush_rle
from refcut_backend.follow_annotations import AnnotationFollower
from refcut_backend.jobs.click_job import ClickAnswer, ClickJob
from refcut_backend.store.database import open_database
from refcut_backend.store.projects import Projects
from refcut_backend.store.references import References
from refcut_backend.web.app import Services, create_app

HEIGHT, WIDTH = 1200, 1600
LABEL_CONFIG = (Path(__file__).parents[1] / "label_config" / "clicks_brush.xml").read_text()


class Instantly:
    """A worker without a network."""

    def __init__(self) -> None:
        self._answer = ClickAnswer(width=WIDTH, height=HEIGHT, rle=a_mask(0), score=0.9)

    def ask(self, _job: ClickJob) -> ClickAnswer:
        return self._answer

    def is_reachable(self) -> bool:
        return True


def a_mask(seed: int) -> list[int]:
    """The RLE of a blob with an uneven border, about 600 x 400 px."""
    noise = np.random.default_rng(seed).random((HEIGHT // 40, WIDTH // 40), np.float32)
    uneven_hw = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    distance_hw = np.hypot((rows - HEIGHT / 2) / 200, (cols - WIDTH / 2) / 300)
    return brush_rle.encode(distance_hw + 0.3 * uneven_hw < 1)


def click_body(masks: list[list[int]], number: int) -> bytes:
    """A click on a task that has these masks; a task and a dot of its own for each number."""
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    regions: list[dict[str, Any]] = [
        {
            "id": f"mask{place}",
            "type": "brushlabels",
            "from_name": "brush",
            "to_name": "image",
            **size,
            "value": {"format": "rle", "rle": rle, "brushlabels": ["Door"]},
        }
        for place, rle in enumerate(masks)
    ]
    dot = {
        "id": f"dot{number}",
        "type": "keypointlabels",
        "from_name": "click",
        "to_name": "image",
        "is_positive": True,
        **size,
        "value": {"x": 50, "y": 50, "width": 0.4, "keypointlabels": ["Door"]},
    }
    task: dict[str, Any] = {"id": number + 1, "data": {"image": "/data/upload/1/a.jpg"}}
    task["drafts"] = [{"id": 1, "result": regions}]
    params = {"context": {"result": [dot]}}
    body = {"tasks": [task], "project": "1.1", "label_config": LABEL_CONFIG, "params": params}
    return json.dumps(body).encode()


def timed(client: TestClient, body: bytes) -> float:
    started = time.process_time()
    answer = client.post("/predict", content=body)
    taken = 1000 * (time.process_time() - started)
    assert answer.json()["results"][0]["result"], answer.text
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--masks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    masks = [a_mask(seed) for seed in range(arguments.masks)]
    with tempfile.TemporaryDirectory() as folder:
        engine = open_database(f"sqlite:///{folder}/refcut.db")
        projects, references = Projects(engine), References(engine)
        queue: Any = Instantly()
        clicks = ClickService(queue, references, "none", AnswerRules(), ClickMemory(engine, 600))
        services = Services(clicks, projects, AnnotationFollower(references, projects), queue, "none", None)
        milliseconds: dict[int, list[float]] = {0: [], len(masks): []}
        with TestClient(create_app(services, request_max_bytes=2**30)) as client:
            for number in range(2 * arguments.rounds + 2):
                count = (0, len(masks))[number % 2]
                milliseconds[count].append(timed(client, click_body(masks[:count], number)))
        engine.dispose()
    megabytes = len(click_body(masks, 0)) / 1e6
    none, many = (statistics.median(values[1:]) for values in milliseconds.values())
    print(f"no mask {none:.1f} ms; {len(masks)} masks ({megabytes:.1f} MB) {many - none:.1f} ms more")


if __name__ == "__main__":
    main()
