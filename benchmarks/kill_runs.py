"""Kills what trains, Redis or the web server at random: `python -m benchmarks.kill_runs [--runs 20] [--seed 0]`.

One team goes on through all runs: annotations are submitted, somebody clicks, a training is asked for, and at a random
moment one of the three processes is killed with -9. What `refcut run` does not start again by itself (the web server) is
started again as a service manager would. A webhook that nobody takes is lost, as Label Studio's are. After every run:

- every annotation that was ever submitted is known in its newest state, and was in the snapshot of that run's training,
  if it was submitted before it was asked for;
- the training has ended well, and its version serves;
- every version in the store is whole by its hashes, and its network loads;
- every click that was answered was answered by such a version.

Real processes, a tiny network, short trainings that always promote. Ends with status 1 if anything is missing. Ctrl-C
ends it early, with what the runs so far have shown.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from sqlalchemy import Engine

from benchmarks.kill_world import (
    FIRST_ANNOTATIONS,
    LIMIT_S,
    PROJECT,
    RECONCILE_S,
    Backend,
    Team,
    add_arguments,
    print_team,
    team_at_work,
    unknown_annotations,
)
from benchmarks.report import print_table, write_json
from model.checkpoints.version_folder import version_name
from model.checkpoints.weights import load_network
from model.data.snapshot import read_snapshot
from model.errors import ModelError
from refcut_backend.errors import ModelStoreError
from refcut_backend.training.runs import Outcome, Run, TrainingRuns
from refcut_backend.training.snapshot import SNAPSHOT_DIR, annotations_of
from refcut_backend.versions.store import ModelStore
from tests.support.trained_folders import trained_folder

VICTIMS = {
    "training worker": r"--queues training",
    "Redis": r"redis-server",
    "web server": r"refcut_backend serve$",
}
"""What is killed, and what its command line has that no other's has."""
EACH_RUN = 3
PAUSE_S = 0.5


@dataclass(frozen=True)
class Result:
    """What one run came to. problems: what was lost, a sentence each."""

    victim: str
    killed_after_s: float
    in_stage: str
    attempts: int
    seconds: float
    problems: list[str]


class Runs:
    """All that is looked at after a kill."""

    def __init__(self, team: Team, backend: Backend, engine: Engine, latest_kill_s: float) -> None:
        self._team, self._backend, self._engine = team, backend, engine
        self._runs = TrainingRuns(engine)
        self._store = ModelStore.open(str(backend.folder / "models"))
        self._shared = version_name(backend.folder / "tiny")
        self._latest_kill_s = latest_kill_s

    def one(self, victim: str) -> Result:
        """Run one training during which `victim` is killed at a random moment."""
        started = time.monotonic()
        kill_at = started + self._team.rng.uniform(0.0, self._latest_kill_s)
        stopping = threading.Event()

        def kill() -> None:
            time.sleep(max(kill_at - time.monotonic(), 0))
            run = self._runs.under_way(PROJECT)
            stages.append(run.stage.value if run else "none")
            self._wait(lambda: self._backend.kill(VICTIMS[victim]), f"there is a {victim}")

        def submit() -> None:
            for _ in range(EACH_RUN):
                self._team.submit()
                stopping.wait(PAUSE_S)

        stages: list[str] = []
        asked_of = dict(self._team.submitted)
        threads = [threading.Thread(target=action) for action in (kill, submit)]
        for thread in threads:
            thread.start()
        run_id = self._ask()
        for thread in threads:
            thread.join()
        self._wait(lambda: self._run(run_id).has_ended, "the training has ended")
        problems = [*self._problems_of(run_id, asked_of), *self._wrong_versions()]
        run = self._run(run_id)
        seconds = time.monotonic() - started
        return Result(victim, kill_at - started, stages[0], run.attempt, round(seconds, 1), problems)

    def _ask(self) -> str:
        """Presses the button until somebody answers."""
        body = {"action": "START_TRAINING", "project": {"id": PROJECT}}
        found: list[str] = []

        def press() -> bool:
            with suppress(httpx.HTTPError):
                answer = self._team.client.post("/webhook", json=body, timeout=5)
                if answer.status_code in (200, 201):
                    found.append(answer.json()["job"])
            return bool(found)

        self._wait(press, "the button is answered")
        return found[0]

    def _problems_of(self, run_id: str, asked_of: dict[int, str]) -> list[str]:
        run = self._run(run_id)
        problems = []
        if run.outcome is not Outcome.PROMOTED:
            problems.append(f"the training ended as {run.outcome}: {run.message}")
        folder = self._backend.folder / "training" / str(PROJECT) / run_id / SNAPSHOT_DIR
        seen = annotations_of(read_snapshot(folder))
        missed = [number for number, updated_at in asked_of.items() if seen.get(number, "") < updated_at]
        problems += [f"annotation {number} is not in the snapshot" for number in missed]
        with suppress(TimeoutError):
            self._wait(
                lambda: not unknown_annotations(self._engine, self._team),
                "all annotations are known",
                RECONCILE_S * 12,
            )
        problems += [
            f"annotation {number} is not known" for number in unknown_annotations(self._engine, self._team)
        ]
        return problems

    def _wrong_versions(self) -> list[str]:
        """What serves, or may, and is not whole."""
        problems = []
        whole = {self._shared}
        store = ModelStore.open(str(self._backend.folder / "models"))
        for version in store.versions(PROJECT):
            try:
                load_network(store.local_folder(version))
                whole.add(version)
            except (ModelStoreError, ModelError, OSError, RuntimeError) as error:
                problems.append(f"{version} is not whole: {error}")
        current = store.current(PROJECT)
        if current is not None and current not in whole:
            problems.append(f"{current} shall serve and is not whole")
        problems += [f"{version} answered and is not whole" for version in self._team.versions - whole]
        return problems

    def _run(self, run_id: str) -> Run:
        run = self._runs.of(run_id)
        assert run is not None
        return run

    def _wait(self, condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
        if not self._backend.keep_until(condition, limit_s):
            raise TimeoutError(f"waited in vain until {what}")


def start_backend(folder: Path, port: int) -> Backend:
    """Start a backend around a tiny network."""
    trained_folder(folder / "tiny")
    return Backend(folder, port)


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20)
    add_arguments(parser, VICTIMS)
    parser.add_argument("--latest-kill-s", type=float, default=12.0, help="after a run's begin")
    arguments = parser.parse_args()
    results: list[Result] = []
    with team_at_work(arguments, start_backend, FIRST_ANNOTATIONS) as (team, backend, engine):
        runs = Runs(team, backend, engine, arguments.latest_kill_s)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt), team.clicking():
            for number in range(arguments.runs):
                victim = arguments.only or team.rng.choice(list(VICTIMS))
                results.append(runs.one(victim))
                print(number + 1, results[-1], file=sys.stderr, flush=True)
    print_team(team, backend, f"{len(results)} runs")
    _print(results)
    write_json(arguments.json, {"runs": [asdict(result) for result in results], "clicks": dict(team.clicks)})
    sys.exit(any(result.problems for result in results))


def _print(results: list[Result]) -> None:
    rows = []
    for victim in VICTIMS:
        mine = [result for result in results if result.victim == victim]
        stages = Counter(result.in_stage for result in mine)
        rows.append(
            [
                victim,
                len(mine),
                ", ".join(f"{count} {stage}" for stage, count in sorted(stages.items())),
                sum(result.attempts > 1 for result in mine),
                sum(bool(result.problems) for result in mine),
            ]
        )
    print_table(["killed", "runs", "while", "trainings begun again", "runs with a loss"], rows)
    for result in results:
        for problem in result.problems:
            print(f"{result.victim} after {result.killed_after_s:.1f} s: {problem}")


if __name__ == "__main__":
    main()
