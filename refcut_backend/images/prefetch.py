"""Fetches images in the background, so that the worker can answer a click that arrives in the meantime."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from refcut_backend.errors import ImageError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.fetch import Fetched, Stamp

MAX_STARTED = 2
"""Limit for fetches that are running or whose image was not used yet, because they hold the file in memory."""
FRESH_S = 30.0
"""A result that is not used within this time is dropped."""

Fetch = Callable[[TaskImage, Stamp, float], Fetched]
"""Fetches (image, known stamp, limit in seconds). Raises RefCutError."""


@dataclass(frozen=True)
class _Started:
    """A fetch in the background, and when it was started (monotonic seconds)."""

    result: Future[Fetched]
    at: float


class Prefetcher:
    """Starts fetches in the background; a later `fetch` of the same image returns their result. Not thread-safe."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._started: dict[tuple[TaskImage, Stamp], _Started] = {}

    def begin(self, image: TaskImage, known: Stamp, limit_s: float) -> Future[Fetched] | None:
        """Starts a fetch unless it was started before.

        Args:
            image: The image.
            known: Stamp of the known state, or UNKNOWN.
            limit_s: Longest time for the fetch, in seconds.

        Returns:
            Its future result; None if MAX_STARTED fetches are in progress.
        """
        self._drop_stale()
        if (image, known) not in self._started:
            if not self._has_room():
                return None
            result: Future[Fetched] = Future()
            arguments = (result, image, known, limit_s)
            threading.Thread(target=self._run, args=arguments, name="prefetch", daemon=True).start()
            self._started[image, known] = _Started(result, self._clock())
        return self._started[image, known].result

    def fetch(self, image: TaskImage, known: Stamp, limit_s: float) -> Fetched:
        """Returns the result of a started fetch, or fetches now. Arguments are those of `begin`. Raises RefCutError."""
        self._drop_stale()
        started = self._started.pop((image, known), None)
        if started is None:
            return self._fetch(image, known, limit_s)
        try:
            return started.result.result(timeout=limit_s)
        except TimeoutError:
            raise ImageError(
                f"the image did not arrive within {limit_s:g} s", hint="REFCUT_IMAGE_TIMEOUT_S sets the limit"
            ) from None

    def forget(self) -> None:
        """Drops results that were not used."""
        self._started.clear()

    def _drop_stale(self) -> None:
        oldest = self._clock() - FRESH_S
        self._started = {key: started for key, started in self._started.items() if started.at >= oldest}

    def _has_room(self) -> bool:
        if len(self._started) < MAX_STARTED:
            return True
        unclaimed = [key for key, started in self._started.items() if started.result.done()]
        if unclaimed:
            del self._started[unclaimed[0]]
        return bool(unclaimed)

    def _run(self, result: Future[Fetched], image: TaskImage, known: Stamp, limit_s: float) -> None:
        try:
            result.set_result(self._fetch(image, known, limit_s))
        except BaseException as error:
            result.set_exception(error)
