"""The length of a fine-tuning: the number of steps that is wanted, shortened to the time that it may take.

Nothing is measured in advance. A run starts as if there were time for all of its steps. At certain steps it reviews how
long the last steps took, and shortens or lengthens the rest to what fits. A machine that is busy for a while thus costs
only that while.

Each decision is in `plan.json` before the next step is taken. A run that is resumed, or repeated with that file, takes
the same steps at the same learning rates. `Plan` is the decisions as a value; `TimeBudget` measures and makes them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.files import atomic_write
from model.finetuning.config import FineTuneSettings
from model.training.distributed import Processes

PLAN_FILE = "plan.json"
EARLY_REVIEWS = (3, 5, 10)
"""Steps of the first reviews, for machines on which a step takes long."""
REVIEW_EVERY = 20
"""Steps between later reviews."""
SPARE_SHARE = 0.05
"""Share of the time that is left for the work after the last step."""
WORTH_CHANGING = 0.05
"""A review changes the length only by more than this share of the remaining steps."""


@dataclass(frozen=True)
class Review:
    """One decision about the length of a run.

    Attributes:
        after_step: Number of steps taken when it was made.
        steps: Length of the whole run from then on.
        spent_s: Seconds that the run had taken by then.
    """

    after_step: int
    steps: int
    spent_s: float


@dataclass(frozen=True)
class Plan:
    """The length of a run, with all decisions about it so far.

    Attributes:
        wanted: Number of steps if time allows.
        reviews: Decisions in order.

    Example:
        >>> plan = Plan(wanted=600).reviewed(step=20, step_s=10.0, spent_s=200.0, limit_s=1000.0)
        >>> plan.steps
        95
    """

    wanted: int
    reviews: tuple[Review, ...] = ()

    @property
    def steps(self) -> int:
        """Length of the whole run as currently planned."""
        return self.reviews[-1].steps if self.reviews else self.wanted

    def progress(self, step: int) -> float:
        """Return the share of the run that is complete after `step` steps, 0 to 1.

        It depends only on reviews before that step, never jumps, and is 1 at the end. It drives the learning rate.
        """
        at, share, steps = 0, 0.0, self.wanted
        for review in self.reviews:
            if review.after_step >= step:
                break
            share += (1 - share) * (review.after_step - at) / max(steps - at, 1)
            at, steps = review.after_step, review.steps
        return min(share + (1 - share) * (step - at) / max(steps - at, 1), 1.0)

    def is_over(self, step: int) -> bool:
        """Tell whether a run that has taken `step` steps is complete."""
        return step >= next((r.steps for r in reversed(self.reviews) if r.after_step <= step), self.wanted)

    def is_due(self, step: int) -> bool:
        """Tell whether a review is due after `step` steps. A resumed run does not repeat reviews."""
        is_review_step = step in EARLY_REVIEWS or (step > 0 and step % REVIEW_EVERY == 0)
        return is_review_step and (not self.reviews or step > self.reviews[-1].after_step)

    def spent_s(self, step: int) -> float:
        """Return the seconds spent by the last review at or before `step`. A resumed run counts on from there."""
        return next((r.spent_s for r in reversed(self.reviews) if r.after_step <= step), 0.0)

    def reviewed(self, step: int, step_s: float, spent_s: float, limit_s: float) -> Plan:
        """Return the plan with one more review.

        Args:
            step: Steps taken so far.
            step_s: Seconds per step, measured lately.
            spent_s: Seconds that the run has taken so far.
            limit_s: Longest time of the run in seconds.
        """
        affordable = int(max((1 - SPARE_SHARE) * limit_s - spent_s, 0.0) / max(step_s, 1e-9))
        steps = max(min(self.wanted, step + affordable), step)
        if abs(steps - self.steps) <= WORTH_CHANGING * (self.steps - step):
            steps = self.steps
        return replace(self, reviews=(*self.reviews, Review(step, steps, round(spent_s, 1))))


def make_plan(images: int, settings: FineTuneSettings) -> Plan:
    """Make the plan of a new run.

    Args:
        images: Number of training images.
        settings: Gives `steps`, or the steps per image and their limits.
    """
    by_images = min(settings.steps_per_image * images, settings.max_steps)
    return Plan(settings.steps or max(settings.min_steps, by_images))


def read_plan(run_dir: Path) -> Plan | None:
    """Read the plan of a run; None for a new run."""
    path = run_dir / PLAN_FILE
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    return Plan(content["wanted"], tuple(Review(*review) for review in content["reviews"]))


def write_plan(plan: Plan, run_dir: Path) -> None:
    """Write the plan of a run atomically."""
    reviews = [(review.after_step, review.steps, review.spent_s) for review in plan.reviews]
    text = json.dumps({"wanted": plan.wanted, "steps": plan.steps, "reviews": reviews}) + "\n"
    with atomic_write(run_dir / PLAN_FILE) as temporary:
        temporary.write_text(text)


class TimeBudget:
    """Measures the steps of a run and reviews its plan.

    Attributes:
        plan: The plan as it stands.
        run_dir: Folder that the plan is written to.
        limit_s: Longest time of the run in seconds.
    """

    def __init__(
        self,
        plan: Plan,
        run_dir: Path,
        limit_s: float,
        processes: Processes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            plan: The plan of a new run, or the one that a resumed run has read.
            run_dir: Folder of the run.
            limit_s: Longest time of the run in seconds, its interrupted parts included.
            processes: All of them take part in a review, so that all come to the same decision.
            clock: Returns seconds.
        """
        self.plan = plan
        self.run_dir = run_dir
        self.limit_s = limit_s
        self._processes = processes
        self._clock = clock
        self._started_s = clock()
        self._spent_before_s = 0.0
        self._taken = 0
        self._last_review: tuple[int, float] | None = None

    def resume_at(self, step: int) -> None:
        """Count the time that the run took before it was interrupted after `step` steps, and write the plan."""
        self._spent_before_s = self.plan.spent_s(step)
        self._write()

    def step_taken(self, step: int) -> float:
        """Count one step of this process.

        Args:
            step: Steps of the whole run so far.

        Returns:
            Estimated seconds to the end of the run, at most what the limit leaves: reviews shorten the run to it.
        """
        self._taken += 1
        as_so_far = (self.plan.steps - step) * (self._clock() - self._started_s) / self._taken
        return min(as_so_far, max(self.limit_s - self._spent_s(), 0.0))

    def review(self, step: int) -> None:
        """Review the plan after `step` steps, if a review is due."""
        now_s = self._clock()
        if self._taken <= 1 or self._last_review is None:
            # The first step also waits for the first batch, so its time says nothing about later steps.
            self._last_review = step, now_s
        elif self.plan.is_due(step):
            since, at_s = self._last_review
            figures = torch.tensor(
                [(now_s - at_s) / (step - since), self._spent_s()],
                dtype=torch.float64,
                device=self._processes.device,
            )
            self._processes.mean([figures])
            step_s, spent_s = figures.tolist()
            self.plan = self.plan.reviewed(step, step_s, spent_s, self.limit_s)
            self._last_review = step, now_s
            self._write()

    def is_spent(self) -> bool:
        """Tell whether the time limit has passed."""
        return self._spent_s() > self.limit_s

    def _spent_s(self) -> float:
        return self._spent_before_s + self._clock() - self._started_s

    def _write(self) -> None:
        if self._processes.writes:
            write_plan(self.plan, self.run_dir)
