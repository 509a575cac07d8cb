"""Clicks on their way to the queue, with no secret in them."""

from __future__ import annotations

import dataclasses

from refcut_backend.answer_click import AsksWorkers
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.queue.messages import ClickAnswer, ClickJob


class HidesAddresses:
    """A queue in front of another: signed links stay in the database, and Redis sees a number."""

    def __init__(self, queue: AsksWorkers, addresses: Addresses) -> None:
        self._queue = queue
        self._addresses = addresses

    def ask(self, job: ClickJob) -> ClickAnswer:
        """As the queue behind it."""
        hidden = self._addresses.hide(job.image_address)
        return self._queue.ask(dataclasses.replace(job, image_address=hidden))
