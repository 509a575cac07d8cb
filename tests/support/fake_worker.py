"""A real worker process around a model that does what a click's label says, for tests of everything but the network.

`python -m tests.support.fake_worker --name NAME`: takes Redis from REFCUT_REDIS_URL and appends a line to
FAKE_WORKER_LOG for every click that it begins to compute. FAKE_WORKER_CRASHES names the queues of the workers that
die before they are ready.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from refcut_backend.errors import ImageError
from refcut_backend.inference.jobs import JobRunner
from refcut_backend.inference.work_loop import work
from refcut_backend.label_studio import brush_rle
from refcut_backend.logs import set_up_logging
from refcut_backend.queue.background_queues import PreemptionCheck
from refcut_backend.queue.measure_queue import MeasureAnswer, MeasuredSet, MeasureJob
from refcut_backend.queue.messages import (
    ClickAnswer,
    ClickJob,
    FoundLabel,
    FoundMask,
    LabelToFind,
    PrelabelAnswer,
    PrelabelJob,
    PreloadJob,
)
from refcut_backend.queue.redis import connect_redis
from refcut_backend.queue.rq_jobs import (
    AHEAD_QUEUE,
    CLICK_QUEUE,
    FUNCTIONS,
    PRELABEL_QUEUE,
    PRELOAD_QUEUE,
    read_queue_names,
)
from refcut_backend.system.child_processes import end_with_parent

FOREVER_S = 600
MASK = brush_rle.encode(np.eye(2, 4, dtype=bool))
PRELABEL_FUNCTION = "tests.support.fake_worker.prelabel"


def prelabel(name: str) -> None:
    """A job of the other queue."""
    _log(name)


def _log(name: str) -> None:
    with Path(os.environ["FAKE_WORKER_LOG"]).open("a") as log:
        log.write(f"{name}\n")


class FakeEngine:
    """Labels are orders: `mask`, `sleep 0.3`, `hang`, `hang in C`, `hang with the lock`, `oom`, `crash`."""

    def __init__(self, ballast: bytearray) -> None:
        self._ballast = ballast

    @property
    def device(self) -> str:
        return "none"

    def answer(self, job: ClickJob) -> ClickAnswer:
        _log(job.image_address)
        order, _, argument = job.label.partition(" ")
        if order == "sleep":
            time.sleep(float(argument))
        elif job.label == "hang":
            _sleep_in_python(FOREVER_S)
        elif job.label == "hang in C":
            _swallowing_sleep(ctypes.CDLL(None))
        elif job.label == "hang with the lock":
            _swallowing_sleep(ctypes.PyDLL(None))
        elif order == "oom":
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        elif order == "crash":
            raise KeyError("secret-inside")
        return ClickAnswer(width=3, height=2, rle=[1, 2, 3], score=0.5, reference_versions=("v",))

    def preload(self, job: PreloadJob, must_stop: Callable[[], bool]) -> bool:
        _log(f"preload {job.task_id}")
        return not must_stop()

    def forget(self) -> None:
        pass

    def repair(self) -> None:
        pass


class FakePrelabeller:
    """Image addresses are orders: `wait FILE` (until that exists, or a click waits), `die`, `bad`.

    Anything else is an image on which each label is found once.
    """

    def look(self, job: PrelabelJob, should_yield: Callable[[], bool]) -> PrelabelAnswer:
        found: list[FoundLabel] = []
        for label in job.labels:
            _log(f"task {job.task_id} {label.label}")
            if not self._is_done(label, should_yield):
                break
            found.append(FoundLabel(label.label, label.to_name, 4, 2, (FoundMask(MASK, 0.5),), ("v",)))
        return PrelabelAnswer(tuple(found), "s14-9bec7961")

    def _is_done(self, label: LabelToFind, should_yield: Callable[[], bool]) -> bool:
        order, _, argument = label.image_address.rpartition("/")[2].partition(" ")
        if order == "die":
            os._exit(9)
        if order == "bad":
            raise ImageError("the image is damaged")
        if order == "wait":
            deadline = time.monotonic() + FOREVER_S
            while not Path(os.environ["FAKE_WORKER_LOG"]).with_name(argument).exists():
                if should_yield() or time.monotonic() > deadline:
                    return False
                time.sleep(0.01)
        return not should_yield()


class FakeMeasurer:
    """Every click has the IoU .5. An image address `wait FILE` waits until that exists, or something else waits."""

    def measure(self, job: MeasureJob, should_yield: Callable[[], bool]) -> MeasureAnswer:
        measured: list[MeasuredSet] = []
        order, _, argument = job.image_address.rpartition("/")[2].partition(" ")
        for number in range(len(job.sets)):
            _log(f"mask {job.task_id} {number}")
            gate = Path(os.environ["FAKE_WORKER_LOG"]).parent / argument
            while order == "wait" and number == 1 and not gate.exists() and not should_yield():
                time.sleep(0.01)
            if should_yield():
                break
            measured.append(MeasuredSet(0.5))
        return MeasureAnswer(tuple(measured), "image", "s14-9bec7961")


def _sleep_in_python(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)


def _swallowing_sleep(library: ctypes.CDLL) -> None:
    """Stays in C: every signal interrupts sleep(), and it is called again without Python's handlers in between."""
    deadline = time.monotonic() + FOREVER_S
    library.pause.restype = ctypes.c_int
    block = (ctypes.c_ulong * 16)(*[2**64 - 1] * 16)
    library.pthread_sigmask(0, block, None)
    while time.monotonic() < deadline:
        library.pause()


def main() -> None:
    """Work as a worker process around the fake model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--queues", default="clicks,prelabel")
    parser.add_argument("--load-s", type=float, default=0.0, help="how long loading the model takes")
    parser.add_argument("--ballast-mb", type=int, default=0, help="memory that the model would take")
    arguments = parser.parse_args()
    end_with_parent()
    set_up_logging()
    FUNCTIONS[PRELABEL_QUEUE] |= {PRELABEL_FUNCTION}
    if os.environ.get("FAKE_WORKER_CRASHES") == arguments.queues:
        raise RuntimeError("crashes at every start")

    url = os.environ["REFCUT_REDIS_URL"]

    def make_runner() -> JobRunner:
        time.sleep(arguments.load_s)
        engine = FakeEngine(bytearray(b"x") * (arguments.ballast_mb << 20))
        for_click = PreemptionCheck(connect_redis(url), (CLICK_QUEUE,))
        for_annotator = PreemptionCheck(connect_redis(url), (CLICK_QUEUE, PRELOAD_QUEUE))
        for_others = PreemptionCheck(
            connect_redis(url), (CLICK_QUEUE, PRELOAD_QUEUE, AHEAD_QUEUE, PRELABEL_QUEUE)
        )
        return JobRunner(
            engine,
            FakePrelabeller(),
            for_click.should_yield,
            for_annotator.should_yield,
            FakeMeasurer(),
            for_others.should_yield,
        )

    sys.exit(work(url, read_queue_names(arguments.queues), arguments.name, make_runner))


if __name__ == "__main__":
    main()
