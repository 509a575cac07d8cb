"""The function that rq calls for a training. What does the work is made once, when the worker starts."""

from __future__ import annotations

from refcut_backend.training.training_worker import TrainingWorker

_worker: TrainingWorker | None = None


def train_with(worker: TrainingWorker) -> None:
    """Makes `worker` the one that does this process's trainings."""
    global _worker
    _worker = worker


def run_training_job(run_id: str) -> None:
    """Works on a run until it has ended or must wait again; its row says what became of it."""
    if _worker is None:
        raise RuntimeError("this worker does not train; start one with `refcut worker --queues training`")
    _worker.work_on(run_id)
