"""`refcut run` whose trainings are short and always promote: `python -m benchmarks.eager_run`.

For `kill_runs`. All else is as `refcut run` has it: fine-tuning, judging, the model store, and who starts whom.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model.data.snapshot import Snapshot
from refcut_backend.cli.main import app
from refcut_backend.cli.run import Supervisor
from refcut_backend.errors import RefCutError
from refcut_backend.logs import set_up_logging
from refcut_backend.queue.rq_jobs import TRAINING_QUEUE
from refcut_backend.settings import Settings, read_settings
from refcut_backend.system.child_processes import end_with_parent
from refcut_backend.training.learner import Learner, OnMask, PromotionDecision

STEPS = 15
SIZE_PX = 112
CHECKPOINT_MINUTES = 0.02
WORKER = "worker"


def make_learner(settings: Settings) -> Learner:
    """Imported late, as the product does: torch is large."""
    from model.finetuning.config import FineTuneSettings
    from refcut_backend.training.refcut_learner import ModelLearner

    class EagerLearner(ModelLearner):
        """Promotes every candidate."""

        def compare(
            self, snapshot: Snapshot, serving_dir: Path, candidate_dir: Path, on_mask: OnMask
        ) -> PromotionDecision:
            compared = super().compare(snapshot, serving_dir, candidate_dir, on_mask)
            return PromotionDecision(
                True, ("promoted without a comparison", *compared.reasons), compared.figures
            )

    short = FineTuneSettings(
        steps=STEPS, size_px=SIZE_PX, checkpoint_minutes=CHECKPOINT_MINUTES, loader_workers=0
    )
    return EagerLearner(settings, short)


def train(name: str) -> int:
    """A training worker's process. It does not give way to clicks: twenty trainings shall not take all day."""
    from refcut_backend.queue.heartbeats import new_worker_name
    from refcut_backend.training.process import run_training_worker

    settings = read_settings()
    return run_training_worker(settings, str(settings.redis_url), name or new_worker_name(), make_learner)


def main() -> int:
    """Start everything, or the worker that the arguments describe. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "worker",
        nargs=argparse.REMAINDER,
        help="`worker` and its options, as the supervisor starts its own workers; nothing starts everything",
    )
    arguments: list[str] = parser.parse_args().worker
    set_up_logging()
    try:
        if TRAINING_QUEUE in arguments:
            end_with_parent()
            return train(arguments[-1])
        if WORKER in arguments:
            app(arguments)
            return 0
        return Supervisor(read_settings(), (sys.executable, "-m", "benchmarks.eager_run", WORKER)).run()
    except RefCutError as error:
        sys.exit(f"refcut: {error}")


if __name__ == "__main__":
    sys.exit(main())
