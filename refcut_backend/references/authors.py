"""Label Studio's users by their e-mail addresses, remembered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from refcut_backend.database.projects import Projects
from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.tasks import AnnotationSource, open_source

ASK_AGAIN_S = 30.0


class UserAddresses:
    """Webhooks name users by id alone. Asks Label Studio for all users of a project when it meets an unknown one."""

    def __init__(
        self,
        projects: Projects,
        open_source: Callable[[int, Connection], AnnotationSource] = open_source,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._projects = projects
        self._open_source = open_source
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[int, dict[int, str]] = {}
        self._asked_at: dict[int, float] = {}

    def email_of(self, project_id: int, user_id: int) -> str | None:
        """A user's address; None when Label Studio does not say, which the next comparison makes good."""
        with self._lock:
            known = self._known.get(project_id, {})
            last = self._asked_at.get(project_id)
            if user_id not in known and (last is None or self._now() - last > ASK_AGAIN_S):
                self._asked_at[project_id] = self._now()
                known = self._known[project_id] = self._ask(project_id) or known
            return known.get(user_id)

    def _ask(self, project_id: int) -> dict[int, str]:
        try:
            source = self._open_source(project_id, self._projects.connection(project_id))
            try:
                return source.emails()
            finally:
                source.close()
        except RefCutError:
            return {}
