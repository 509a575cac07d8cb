"""How long a fine-tuning is: chosen once at its start, and kept when it is resumed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from model.finetuning.settings import FineTuneSettings

PLAN_FILE = "plan.json"
TIMED_STEPS = 2
OTHER_SHARE = 0.2
"""Of the time: checks, checkpoints, and steps that take longer than the first ones."""


@dataclass(frozen=True)
class Plan:
    """steps: of the whole run. step_s: as measured at the start."""

    steps: int
    step_s: float


def read_plan(run_dir: Path) -> Plan | None:
    """The plan of a run that has begun."""
    path = run_dir / PLAN_FILE
    return Plan(**json.loads(path.read_text())) if path.is_file() else None


def write_plan(plan: Plan, run_dir: Path) -> None:
    temporary = run_dir / f"{PLAN_FILE}.partial"
    temporary.write_text(json.dumps(asdict(plan)) + "\n")
    os.replace(temporary, run_dir / PLAN_FILE)


def make_plan(images: int, settings: FineTuneSettings, take_step: Callable[[int], object]) -> Plan:
    """take_step: computes the n-th step without changing anything; the first one is not timed."""
    wanted = settings.steps or max(
        settings.min_steps, min(settings.steps_per_image * images, settings.max_steps)
    )
    take_step(0)
    started = time.monotonic()
    for number in range(TIMED_STEPS):
        take_step(1 + number)
    step_s = (time.monotonic() - started) / TIMED_STEPS
    affordable = int((1 - OTHER_SHARE) * settings.time_limit_s / step_s)
    return Plan(max(1, min(wanted, affordable)), step_s)
