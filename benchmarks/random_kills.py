"""Kills web server, worker, Redis or supervisor at random: `python -m benchmarks.random_kills [--kills 20] [--seed 0]`.

Somebody clicks all the time, annotations are submitted, and at a random moment one process is killed with -9. A service
manager starts what `refcut run` does not start again by itself. After every kill:

- clicks are answered again;
- every annotation that was submitted is known in its newest state, also if its webhook was lost;
- every click was answered within its deadline or has a reason, unless there was no web server;
- of a killed supervisor nothing is left.

Real processes around a fake model: the network is not what a kill can lose. `kill_runs` kills during trainings, with one.
Ends with status 1 if anything is missing.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from sqlalchemy import Engine

from benchmarks.kill_world import Backend, Team, add_arguments, print_team, team_at_work, unknown_annotations
from benchmarks.report import print_table, write_json
from model.checkpoints.version_folder import SHIPPED_DIR

SUPERVISOR = "supervisor"
VICTIMS = {
    "web server": r"refcut_backend serve$",
    "worker": r"fake_worker",
    "Redis": r"redis-server",
    SUPERVISOR: "",
}
"""What is killed, and what its command line has that no other's has."""
CLICK_TIMEOUT_S = 8
GRACE_S = 2.0
"""What the way from and to the caller may add to the deadline."""
FIRST_ANNOTATIONS, EACH_KILL = 6, 3
LATEST_KILL_S = 3.0


@dataclass(frozen=True)
class Result:
    """What became of one kill. problems: what was lost, a sentence each."""

    victim: str
    back_after_s: float
    problems: list[str]


class Kills:
    """Kills, and looks at what is left."""

    def __init__(self, team: Team, backend: Backend, engine: Engine) -> None:
        self._team, self._backend, self._engine = team, backend, engine

    def one(self, victim: str) -> Result:
        """Kill a process, submit annotations before and after it, and wait until all is well again."""
        problems: list[str] = []
        for _ in range(EACH_KILL):
            self._team.submit()
        time.sleep(self._team.rng.uniform(0.0, LATEST_KILL_S))
        self._team.submit()
        children = psutil.Process(self._backend.process.pid).children(recursive=True)
        self._kill(victim)
        killed_at, answered = time.monotonic(), self._answered
        self._team.submit()
        # Clicks that were in flight at the kill may still be answered: not the first answer shows that all is back.
        if not self._backend.keep_until(lambda: self._answered > answered + 2):
            problems.append("clicks are not answered again")
        back_after_s = time.monotonic() - killed_at
        if not self._backend.keep_until(lambda: not unknown_annotations(self._engine, self._team)):
            lost = unknown_annotations(self._engine, self._team)
            problems += [f"annotation {number} is not known" for number in lost]
        if victim == SUPERVISOR and not self._backend.keep_until(lambda: not any(map(_is_alive, children))):
            problems.append("a process of the killed supervisor lives on")
        return Result(victim, round(back_after_s, 1), problems)

    def bad_clicks(self) -> list[str]:
        """What was wrong with clicks, over all kills."""
        found = [f"{n} clicks: {what}" for what, n in self._team.clicks.items() if what.startswith("status")]
        if self._team.slowest_click_s > CLICK_TIMEOUT_S + GRACE_S:
            found.append(f"a click took {self._team.slowest_click_s:.1f} s")
        return found

    @property
    def _answered(self) -> int:
        return self._team.clicks["answered"] + self._team.clicks["empty_mask"]

    def _kill(self, victim: str) -> None:
        if victim == SUPERVISOR:
            self._backend.process.kill()
        elif not self._backend.keep_until(lambda: self._backend.kill(VICTIMS[victim])):
            raise SystemExit(f"there is no {victim}")


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def start_backend(folder: Path, port: int) -> Backend:
    """Start a backend around a fake model."""
    settings = {
        "REFCUT_MODEL_DIR": str(SHIPPED_DIR),
        "REFCUT_TRAINING_WORKER": "false",
        "REFCUT_CLICK_TIMEOUT_S": str(CLICK_TIMEOUT_S),
        "FAKE_WORKER_LOG": str(folder / "computed"),
    }
    return Backend(folder, port, "tests.support.fake_run", settings)


def main() -> None:
    """Kill, print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20)
    add_arguments(parser, VICTIMS)
    arguments = parser.parse_args()
    results: list[Result] = []
    with team_at_work(arguments, start_backend, FIRST_ANNOTATIONS) as (team, backend, engine):
        kills = Kills(team, backend, engine)
        with team.clicking():
            for number in range(arguments.kills):
                victim = arguments.only or team.rng.choice(list(VICTIMS))
                results.append(kills.one(victim))
                print(number + 1, results[-1], file=sys.stderr, flush=True)
    bad_clicks = kills.bad_clicks()
    print_team(team, backend, f"{len(results)} kills")
    rows = []
    for victim in VICTIMS:
        mine = [result for result in results if result.victim == victim]
        back = [result.back_after_s for result in mine]
        rows.append([victim, len(mine), max(back, default="-"), sum(bool(r.problems) for r in mine)])
    print_table(["killed", "times", "clicks are answered again after, s (longest)", "with a loss"], rows)
    problems = [f"{r.victim}: {problem}" for r in results for problem in r.problems] + bad_clicks
    print("\n".join(problems))
    write_json(arguments.json, {"kills": [asdict(result) for result in results], "clicks": dict(team.clicks)})
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
