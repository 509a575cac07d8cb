"""How long a fine-tuning is: as many steps as are wanted, or what its time allows, looked at again and again.

Nothing is measured ahead. A run begins as if there were time for all of its steps; at certain steps it looks at how long
the last ones took, and is shortened, or lengthened again, to what fits. A machine that is busy for a while therefore
costs only that while. Whatever was decided is in `plan.json` before the next step is taken: a run that is resumed, or
repeated with that file, takes the same steps at the same learning rates.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from model.finetuning.config import FineTuneSettings

PLAN_FILE = "plan.json"
EARLY_REVIEWS = (3, 5, 10)
REVIEW_EVERY = 20
"""Steps. The early ones are for machines on which a step takes long."""
SPARE_SHARE = 0.05
"""Of the time: what comes after the last step."""
WORTH_CHANGING = 0.05
"""Of the steps that are left: a smaller change is not made."""


@dataclass(frozen=True)
class Review:
    """steps: of the whole run from here on. spent_s: seconds that the run had taken by then."""

    after_step: int
    steps: int
    spent_s: float


@dataclass(frozen=True)
class Plan:
    """wanted: steps where time allows. reviews: in order."""

    wanted: int
    reviews: tuple[Review, ...] = ()

    @property
    def steps(self) -> int:
        """Of the whole run, as it stands."""
        return self.reviews[-1].steps if self.reviews else self.wanted

    def progress(self, step: int) -> float:
        """The share of the run that is over after so many steps: it never jumps, and is 1 at the end.

        Depends on the reviews before that step alone.
        """
        at, share, steps = 0, 0.0, self.wanted
        for review in self.reviews:
            if review.after_step >= step:
                break
            share += (1 - share) * (review.after_step - at) / max(steps - at, 1)
            at, steps = review.after_step, review.steps
        return min(share + (1 - share) * (step - at) / max(steps - at, 1), 1.0)

    def is_over(self, step: int) -> bool:
        """Whether a run that has taken so many steps has taken all."""
        return step >= next((r.steps for r in reversed(self.reviews) if r.after_step <= step), self.wanted)

    def is_due(self, step: int) -> bool:
        """Whether to look after this step; what was looked at once stays decided."""
        is_place = step in EARLY_REVIEWS or (step > 0 and step % REVIEW_EVERY == 0)
        return is_place and (not self.reviews or step > self.reviews[-1].after_step)

    def spent_s(self, step: int) -> float:
        """What the run had taken by the last look at or before a step: where a resumed run goes on counting."""
        return next((r.spent_s for r in reversed(self.reviews) if r.after_step <= step), 0.0)

    def reviewed(self, step: int, step_s: float, spent_s: float, limit_s: float) -> Plan:
        """The plan with another look. step_s: what a step took lately."""
        affordable = int(max((1 - SPARE_SHARE) * limit_s - spent_s, 0.0) / max(step_s, 1e-9))
        steps = max(min(self.wanted, step + affordable), step)
        if abs(steps - self.steps) <= WORTH_CHANGING * (self.steps - step):
            steps = self.steps
        return replace(self, reviews=(*self.reviews, Review(step, steps, round(spent_s, 1))))


def make_plan(images: int, settings: FineTuneSettings) -> Plan:
    """The plan of a run that begins."""
    by_images = min(settings.steps_per_image * images, settings.max_steps)
    return Plan(settings.steps or max(settings.min_steps, by_images))


def read_plan(run_dir: Path) -> Plan | None:
    """The plan of a run that has begun."""
    path = run_dir / PLAN_FILE
    if not path.is_file():
        return None
    said = json.loads(path.read_text())
    return Plan(said["wanted"], tuple(Review(*review) for review in said["reviews"]))


def write_plan(plan: Plan, run_dir: Path) -> None:
    """At once and whole."""
    reviews = [(review.after_step, review.steps, review.spent_s) for review in plan.reviews]
    temporary = run_dir / f"{PLAN_FILE}.partial"
    temporary.write_text(json.dumps({"wanted": plan.wanted, "steps": plan.steps, "reviews": reviews}) + "\n")
    os.replace(temporary, run_dir / PLAN_FILE)
