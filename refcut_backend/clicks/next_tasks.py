"""Prepares the task that will be opened next, while the workers have nothing else to do.

Label Studio's label stream offers the tasks without an annotation in the order of their ids (its sequential sampling, the
default). So the one behind a task that was opened or clicked on is likely to be opened next, by this annotator or another
one. Its image is then fetched and encoded before anybody waits for it. This helps most where Label Studio does not tell
when a task is opened, as in projects with predictions. A wrong guess costs two requests and a worker's idle time.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from cachetools import TTLCache
from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import ListedTask
from refcut_backend.label_studio.tasks import open_source

log = logging.getLogger("refcut.click")

SEQUENTIAL = "Sequential sampling"
CONSIDERED = 10
"""Tasks that Label Studio is asked for. Those that somebody has opened are passed over."""
REMEMBERED = 1000
STAYS_OPEN_S = 1800.0
"""A task without an annotation this long after it was opened or prepared may be opened again."""
SAMPLING_KNOWN_S = 300.0
PAUSE_S = 300.0
"""After Label Studio could not be asked, for the project."""
MAX_WAITING = 16
LIMIT_S = 10.0
"""Longest time for all requests about one task."""
STOP_LIMIT_S = 2.0


class TaskSource(Protocol):
    """Reads a project's tasks: `label_studio.tasks.ApiAnnotations`."""

    def sampling(self) -> str:
        """Returns the order in which the label stream offers tasks."""

    def unannotated_behind(self, task_id: int, limit: int) -> list[ListedTask]:
        """Returns the first tasks behind a task, by id, that have no annotation."""

    def close(self) -> None:
        """Closes the connection."""


class KnownProjects(Protocol):
    """What /setup has reported: `database.projects.Projects`."""

    def connection(self, project_id: int) -> Connection:
        """Returns address and token of the project's Label Studio."""

    def label_config(self, project_id: int) -> str | None:
        """Returns the label config (XML)."""


class Preloader(Protocol):
    """Requests that a task is prepared: `preload.TaskPreloader`."""

    def prepare(self, project_id: int, task_id: int, task_data: dict[str, Any], label_config: str) -> None:
        """Queue the task's images and references."""


def _open(project_id: int, connection: Connection) -> TaskSource:
    return open_source(project_id, connection, LIMIT_S)


class NextTasks:
    """A daemon thread of the web process, so that no annotator waits for Label Studio's answer.

    Every web process has one and knows only the tasks that were opened through it. Two of them may prepare the same task.
    """

    def __init__(
        self,
        projects: KnownProjects,
        preloader: Preloader,
        open_tasks: Callable[[int, Connection], TaskSource] = _open,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the thread; `start` runs it.

        Args:
            projects: Gives address, token and label config of a project.
            preloader: Requests the preparation.
            open_tasks: Opens a project's tasks in Label Studio.
            now: Monotonic seconds.
        """
        self._projects = projects
        self._preloader = preloader
        self._open_tasks = open_tasks
        self._worked_on: queue.Queue[tuple[int, int] | None] = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._opened: TTLCache[tuple[int, int], None] = TTLCache(REMEMBERED, STAYS_OPEN_S, now)
        self._prepared: TTLCache[tuple[int, int], None] = TTLCache(REMEMBERED, STAYS_OPEN_S, now)
        self._sampling: TTLCache[int, str] = TTLCache(REMEMBERED, SAMPLING_KNOWN_S, now)
        self._paused: TTLCache[int, None] = TTLCache(REMEMBERED, PAUSE_S, now)
        self._thread = threading.Thread(target=self._run, name="next-tasks", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a request to Label Studio that hangs is left to itself."""
        with suppress(queue.Full):
            self._worked_on.put(None, timeout=STOP_LIMIT_S)
        if self._thread.is_alive():
            self._thread.join(STOP_LIMIT_S)

    def follow(self, project_id: int, task_id: int) -> None:
        """Note that a task was opened or clicked on; returns at once.

        The first time, what comes behind it is prepared. If too many wait already, it is not.
        """
        with self._lock:
            if (project_id, task_id) in self._opened:
                return
            self._opened[project_id, task_id] = None
            if project_id in self._paused:
                return
        try:
            self._worked_on.put_nowait((project_id, task_id))
        except queue.Full:
            log.info("next task not prepared", extra={"project": project_id, "problem": "too many wait"})

    def prepare_behind(self, project_id: int, task_id: int) -> int | None:
        """Ask Label Studio which task comes next, and request its preparation. Never raises.

        Returns:
            The task; None if there is none, it was prepared before, or the order is not known.
        """
        try:
            task = self._next(project_id, task_id)
            if task is None:
                return None
            label_config = self._projects.label_config(project_id) or ""
        except (RefCutError, SQLAlchemyError) as error:
            with self._lock:
                self._paused[project_id] = None
            problem = str(error) if isinstance(error, RefCutError) else type(error).__name__
            log.info("next task not prepared", extra={"project": project_id, "problem": problem})
            return None
        self._preloader.prepare(project_id, task.id, task.data, label_config)
        return task.id

    def _next(self, project_id: int, task_id: int) -> ListedTask | None:
        source = self._open_tasks(project_id, self._projects.connection(project_id))
        try:
            if not self._is_sequential(project_id, source):
                return None
            tasks = source.unannotated_behind(task_id, CONSIDERED)
        finally:
            source.close()
        with self._lock:
            task = next((task for task in tasks if (project_id, task.id) not in self._opened), None)
            if task is None or (project_id, task.id) in self._prepared:
                return None
            self._prepared[project_id, task.id] = None
        return task

    def _is_sequential(self, project_id: int, source: TaskSource) -> bool:
        sampling = self._sampling.get(project_id)
        if sampling is None:
            sampling = self._sampling[project_id] = source.sampling()
        return sampling == SEQUENTIAL

    def _run(self) -> None:
        while (asked := self._worked_on.get()) is not None:
            try:
                self.prepare_behind(*asked)
            except Exception:
                log.exception("next task not prepared")
