"""Requests a training of a project: by the button in Label Studio, by command, or automatically."""

from __future__ import annotations

import logging

from refcut_backend.database.projects import Projects
from refcut_backend.errors import QueueUnavailableError
from refcut_backend.queue.background_queues import TrainingQueue
from refcut_backend.references.event_log import EventLog
from refcut_backend.training.runs import RequestedBy, Run, TrainingRuns

log = logging.getLogger("refcut.training")

START_TRAINING = "START_TRAINING"


class TrainingRequests:
    """Creates runs and puts them on the queue. While a project is trained, further requests return its active run."""

    def __init__(
        self, runs: TrainingRuns, projects: Projects, events: EventLog, queue: TrainingQueue | None
    ) -> None:
        """Prepare requests.

        Args:
            runs: The runs in the database.
            projects: Projects that have called /setup.
            events: Log of webhooks, which includes the button.
            queue: None if this process does not know Redis; the web process then puts the runs on the queue.
        """
        self._runs = runs
        self._projects = projects
        self._events = events
        self._queue = queue

    def request(self, project_id: int, requested_by: RequestedBy) -> tuple[Run, bool]:
        """Request a training.

        Args:
            project_id: The project.
            requested_by: Who or what requests it.

        Returns:
            The active run of the project, and whether this request created it.

        Raises:
            NotConnectedError: If the project is unknown.
        """
        self._projects.connection(project_id)
        run, is_new = self._runs.request(project_id, requested_by)
        if is_new:
            log.info(
                "training requested", extra={"project": project_id, "run": run.id, "by": requested_by.value}
            )
        self.put_on_queue(run)
        return run, is_new

    def button_pressed(self, project_id: int) -> Run:
        """Handle Label Studio's START_TRAINING. Pressed twice, it gives one event and one run.

        Raises:
            NotConnectedError: If the project is unknown.
        """
        run, _ = self.request(project_id, RequestedBy.BUTTON)
        self._events.record(project_id, START_TRAINING, project_id, run.id)
        return run

    def put_on_queue(self, run: Run) -> None:
        """Put a run on the queue unless a worker has it. While Redis is away, the run waits in the database."""
        if self._queue is None or run.worker is not None or run.has_ended:
            return
        try:
            if self._queue.ensure(run.id, run.attempt):
                log.info("training waits for a worker", extra={"project": run.project_id, "run": run.id})
        except QueueUnavailableError as error:
            log.warning("training not on the queue yet", extra={"problem": error.message})
