"""The web server in front of a queue that answers at once: what is left is the server's own work.

`python -m benchmarks.instant_server` prints its port in one line and serves until it is told to stop.
"""

from __future__ import annotations

import argparse
import dataclasses
import socket
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import uvicorn

from refcut_backend.api.app import THREADS_SWITCH_AFTER_S, create_app
from refcut_backend.clicks.history import ClickHistory
from refcut_backend.clicks.options import AnswerRules
from refcut_backend.clicks.service import ClickService
from refcut_backend.database.engine import open_database
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.connection import Connection
from refcut_backend.queue.messages import ClickAnswer, ClickJob
from refcut_backend.queue.queue_state import QueueState
from refcut_backend.queue.redis import connect_redis
from refcut_backend.references.registry import References
from refcut_backend.settings import Settings
from refcut_backend.wiring import Wiring, wire_backend

PORT_LINE = "port "
LABEL_CONFIG = (Path(__file__).parents[1] / "label_config" / "clicks_brush.xml").read_text()
HEIGHT, WIDTH = 1200, 1600


class InstantQueue:
    """Every click gets the same ellipse."""

    def __init__(self) -> None:
        canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.ellipse(canvas, (WIDTH // 2, HEIGHT // 2), (WIDTH // 4, HEIGHT // 5), 20, 0, 360, 1, -1)
        self._answer = ClickAnswer(width=WIDTH, height=HEIGHT, rle=brush_rle.encode(canvas > 0), score=0.9)

    def ask(self, _job: ClickJob) -> ClickAnswer:
        """Return the same answer for every click."""
        return self._answer


def wiring_in(folder: Path) -> Wiring:
    """The server's own wiring on a database in a folder, without Redis and without a Label Studio to compare with."""
    settings = Settings(state_dir=folder)
    wiring = wire_backend(settings, connect_redis(f"unix://{folder / 'no-redis'}"))
    wiring.projects.remember(1, Connection("http://label-studio", "t"), LABEL_CONFIG, "1")
    engine = open_database(settings.database)
    memory = ClickHistory(engine, settings.click_memory_s)
    clicks = ClickService(
        InstantQueue(), References(engine), wiring.versions, AnswerRules.of(settings), memory
    )
    return dataclasses.replace(
        wiring, clicks=clicks, queue_state=lambda: QueueState(0, 0.0, (), {}), reconcile=None
    )


def main() -> None:
    """Print the port and serve until told to stop."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.setswitchinterval(THREADS_SWITCH_AFTER_S)
    # The protocol is named so that asyncio switches Nagle's algorithm off, as it does for the sockets it makes itself.
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    with tempfile.TemporaryDirectory() as folder, listening:
        listening.bind(("127.0.0.1", 0))
        app = create_app(wiring_in(Path(folder)), request_max_bytes=64 * 2**20)
        print(f"{PORT_LINE}{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listening])


if __name__ == "__main__":
    main()
