"""Fetches images ahead of time without holding the worker: a click that comes meanwhile is answered first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from refcut_backend.errors import ImageError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.fetch import Fetched, Stamp

AT_ONCE = 2
"""Fetches ahead of time that run, or whose image has not been asked for yet: what they may hold in memory."""


FRESH_S = 30.0
"""An outcome that nobody asked for in this time is not used any more."""


Fetch = Callable[[TaskImage, Stamp, float], Fetched]
"""(image, stamp that is known, limit in seconds) to bytes. Raises RefCutError."""


@dataclass(frozen=True)
class _Begun:
    outcome: Future[Fetched]
    at: float


class Prefetcher:
    """Begins fetches, and hands their outcome to whoever asks for the same image. To be used from one thread."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._begun: dict[tuple[TaskImage, Stamp], _Begun] = {}

    def begin(self, image: TaskImage, known: Stamp, limit_s: float) -> Future[Fetched] | None:
        """The outcome to come; None when too much is under way already."""
        self._drop_stale()
        if (image, known) not in self._begun:
            if not self._has_room():
                return None
            outcome: Future[Fetched] = Future()
            self._begun[image, known] = _Begun(outcome, self._clock())
            arguments = (outcome, image, known, limit_s)
            threading.Thread(target=self._run, args=arguments, name="prefetch", daemon=True).start()
        return self._begun[image, known].outcome

    def fetch(self, image: TaskImage, known: Stamp, limit_s: float) -> Fetched:
        """The image, from a fetch that was begun or from a new one. Raises RefCutError."""
        self._drop_stale()
        begun = self._begun.pop((image, known), None)
        if begun is None:
            return self._fetch(image, known, limit_s)
        try:
            return begun.outcome.result(timeout=limit_s)
        except TimeoutError:
            raise ImageError(
                f"the image did not arrive within {limit_s:g} s", hint="REFCUT_IMAGE_TIMEOUT_S sets the limit"
            ) from None

    def forget(self) -> None:
        """Drops what was fetched and not asked for."""
        self._begun.clear()

    def _drop_stale(self) -> None:
        oldest = self._clock() - FRESH_S
        self._begun = {key: begun for key, begun in self._begun.items() if begun.at >= oldest}

    def _has_room(self) -> bool:
        if len(self._begun) < AT_ONCE:
            return True
        unclaimed = [key for key, begun in self._begun.items() if begun.outcome.done()]
        if unclaimed:
            del self._begun[unclaimed[0]]
        return bool(unclaimed)

    def _run(self, outcome: Future[Fetched], image: TaskImage, known: Stamp, limit_s: float) -> None:
        try:
            outcome.set_result(self._fetch(image, known, limit_s))
        except BaseException as error:
            outcome.set_exception(error)
