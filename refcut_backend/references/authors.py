"""E-mail addresses of Label Studio's users, cached: webhooks name users by id, REFCUT_REFERENCE_AUTHORS by address."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from refcut_backend.database.projects import Projects
from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.tasks import AnnotationSource, open_source

RETRY_AFTER_S = 30.0
"""A user that is still unknown is looked up again after this time."""
LOOK_UP_LIMIT_S = 5.0
"""Webhooks wait for a look-up, also those of other projects."""
_open_briefly = partial(open_source, total_s=LOOK_UP_LIMIT_S)


class UserEmails:
    """Looks users up by id. An unknown id makes it read all users of the project from Label Studio. Thread-safe."""

    def __init__(
        self,
        projects: Projects,
        open_source: Callable[[int, Connection], AnnotationSource] = _open_briefly,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._projects = projects
        self._open_source = open_source
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[int, dict[int, str]] = {}
        self._read_at: dict[int, float] = {}

    def email_of(self, project_id: int, user_id: int) -> str | None:
        """Returns a user's address; None if Label Studio does not give it, in which case the next comparison retries."""
        with self._lock:
            known = self._known.get(project_id, {})
            last = self._read_at.get(project_id)
            if user_id not in known and (last is None or self._now() - last > RETRY_AFTER_S):
                self._read_at[project_id] = self._now()
                known = self._known[project_id] = self._read(project_id) or known
            return known.get(user_id)

    def _read(self, project_id: int) -> dict[int, str]:
        try:
            source = self._open_source(project_id, self._projects.connection(project_id))
            try:
                return source.emails()
            finally:
                source.close()
        except RefCutError:
            return {}
