"""Several processes follow the same annotations at once: two web processes, and the command line."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.support import forked_processes
from tests.support.recorded import recorded
from tests.support.registry import open_registry

LIFE: list[dict[str, Any]] = [r["body"] for r in recorded("api_references_life")["backend_requests"]]
PROJECT = LIFE[0]["project"]["id"]


def follow_shuffled(place: Path | str, seed: int, start: Any) -> None:
    events = LIFE * 2
    random.Random(seed).shuffle(events)
    with open_registry(place) as registry:
        start.wait()
        registry.follow(*events)


def check_processes_at_once(place: Path | str, alone_in: Path) -> None:
    """Three processes on one database end up with what one process has on its own."""
    forking = forked_processes.forking()
    start = forking.Event()
    processes = [forking.Process(target=follow_shuffled, args=(place, seed, start)) for seed in range(3)]
    for process in processes:
        process.start()
    with open_registry(alone_in) as alone, open_registry(place) as shared:
        alone.follow(*LIFE)
        start.set()
        for process in processes:
            process.join(240)
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert shared.state(PROJECT) == alone.state(PROJECT)
        assert len(alone.state(PROJECT)) == 3


def test_processes_that_follow_the_same_events_at_once_leave_the_same_state_as_one(tmp_path):
    check_processes_at_once(tmp_path / "many", tmp_path / "one")
