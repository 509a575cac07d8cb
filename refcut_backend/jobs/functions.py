"""The queues, and the functions that a worker may be asked to run: nothing else that a job names is ever called."""

from __future__ import annotations

from refcut_backend.errors import ConfigError

CLICK_QUEUE = "clicks"
WARM_QUEUE = "warm"
PRELABEL_QUEUE = "prelabel"
TRAINING_QUEUE = "training"

CLICK_FUNCTION = "refcut_backend.worker.run_click.run_click"
WARM_FUNCTION = "refcut_backend.worker.run_warm.run_warm"
PRELABEL_FUNCTION = "refcut_backend.worker.run_prelabel.run_prelabel"
TRAINING_FUNCTION = "refcut_backend.training.training_job.run_training_job"

FUNCTIONS: dict[str, frozenset[str]] = {
    CLICK_QUEUE: frozenset({CLICK_FUNCTION}),
    WARM_QUEUE: frozenset({WARM_FUNCTION}),
    PRELABEL_QUEUE: frozenset({PRELABEL_FUNCTION}),
    TRAINING_QUEUE: frozenset({TRAINING_FUNCTION}),
}
"""Queue to the functions of its jobs. The order is the order in which a worker looks for work."""

MODEL_QUEUES = (CLICK_QUEUE, WARM_QUEUE, PRELABEL_QUEUE)
"""What a worker serves unless told otherwise; these need the model that serves. Training has a process of its own."""


def read_queue_names(text: str) -> tuple[str, ...]:
    """Queue names from a comma separated list, the most urgent one first. Raises ConfigError that names what is wrong."""
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    unknown = wanted - FUNCTIONS.keys()
    if unknown or not wanted:
        raise ConfigError(
            f"no such queue: {', '.join(sorted(unknown)) or 'none was named'}",
            hint=f"choose from {', '.join(FUNCTIONS)}",
        )
    if TRAINING_QUEUE in wanted and len(wanted) > 1:
        raise ConfigError(
            "training takes hours and would hold up clicks", hint="give training a worker of its own"
        )
    return tuple(name for name in FUNCTIONS if name in wanted)
