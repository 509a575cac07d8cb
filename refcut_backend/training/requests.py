"""Asks for a training of a project: by the button in Label Studio, by command, or because enough is new."""

from __future__ import annotations

import logging

from refcut_backend.database.projects import Projects
from refcut_backend.errors import QueueUnavailableError
from refcut_backend.queue.background_queues import TrainingQueue
from refcut_backend.references.annotation_states import EventLog
from refcut_backend.training.runs import RequestedBy, Run, TrainingRuns

log = logging.getLogger("refcut.training")

START_TRAINING = "START_TRAINING"


class TrainingRequests:
    """One training of a project at a time; whoever asks meanwhile is told which one is under way."""

    def __init__(
        self, runs: TrainingRuns, projects: Projects, events: EventLog, queue: TrainingQueue | None
    ) -> None:
        """queue: None where Redis is out of reach; the web process then puts the run on the queue."""
        self._runs = runs
        self._projects = projects
        self._events = events
        self._queue = queue

    def request(self, project_id: int, requested_by: RequestedBy) -> tuple[Run, bool]:
        """The run under way, or a new one; and whether it is new. Raises NotConnectedError for an unknown project."""
        self._projects.connection(project_id)
        run, is_new = self._runs.request(project_id, requested_by)
        if is_new:
            log.info(
                "training asked for", extra={"project": project_id, "run": run.id, "by": requested_by.value}
            )
        self.put_on_queue(run)
        return run, is_new

    def button_pressed(self, project_id: int) -> Run:
        """Label Studio's START_TRAINING. Pressed twice, it is one event and one run. Raises NotConnectedError."""
        run, _ = self.request(project_id, RequestedBy.BUTTON)
        self._events.record(project_id, START_TRAINING, project_id, run.id)
        return run

    def put_on_queue(self, run: Run) -> None:
        """Unless a worker has the run. While Redis is away the run waits in the database."""
        if self._queue is None or run.worker is not None or run.has_ended:
            return
        try:
            if self._queue.ensure(run.id, run.attempt):
                log.info("training waits for a worker", extra={"project": run.project_id, "run": run.id})
        except QueueUnavailableError as error:
            log.warning("training not on the queue yet", extra={"problem": error.message})
