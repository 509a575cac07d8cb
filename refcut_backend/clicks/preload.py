"""Asks a worker to prepare a task's images and references, so that the first click is fast."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.clicks.log import ClickLog
from refcut_backend.errors import RefCutError
from refcut_backend.images.address import image_of_task
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio.label_config import ProjectControls, read_label_config
from refcut_backend.queue.messages import PreloadJob
from refcut_backend.references.registry import References

log = logging.getLogger("refcut.click")

MAX_LABELS = 8
MAX_IMAGES = 4


class PreloadSender(Protocol):
    """Sends a preload to a worker: `queue.background_queues.PreloadQueue`."""

    def ask(self, job: PreloadJob) -> bool:
        """Queue the job. Return whether it was queued."""


class TaskPreloader:
    """Requests preloads of tasks that were opened, or that are opened next (`next_tasks`). Never raises.

    Args:
        queue: Sends the preload.
        references: Masks that say what a label means.
        clicks: Tells which labels were clicked last.
        addresses: Keeps signed URLs out of Redis.
        max_references: Highest number of references per label.
    """

    def __init__(
        self,
        queue: PreloadSender,
        references: References,
        clicks: ClickLog,
        addresses: Addresses,
        max_references: int,
    ) -> None:
        self._queue = queue
        self._references = references
        self._clicks = clicks
        self._addresses = addresses
        self._max_references = max_references

    def prepare(self, project_id: int, task_id: int, task_data: dict[str, Any], label_config: str) -> None:
        """Request the images that can be clicked on and the references of the labels that may be clicked.

        Call it after Label Studio has its answer, so that the task does not open later because of it.
        """
        try:
            controls = read_label_config(label_config, task_data)
            images = tuple(self._addresses.hide(address) for address in _images(task_data, controls))
            if images:
                references = tuple(islice(self._of_labels(project_id, controls), MAX_LABELS))
                self._queue.ask(PreloadJob(project_id, task_id, images[:MAX_IMAGES], references))
        except (RefCutError, SQLAlchemyError) as error:
            log.warning("task not prepared", extra={"task": task_id, "problem": type(error).__name__})

    def _of_labels(self, project_id: int, controls: ProjectControls) -> Iterator[tuple[int, ...]]:
        """What a click on each label uses; labels that were clicked last come first, then the others by name."""
        labels = sorted({label for control in controls.clicks for label in control.labels})
        clicked = [label for label in self._clicks.last_labels(project_id) if label in labels]
        for label in dict.fromkeys([*clicked, *labels]):
            found = self._references.newest(project_id, label, self._max_references)
            if found:
                yield tuple(reference.id for reference in found)


def _images(task_data: dict[str, Any], controls: ProjectControls) -> Iterator[str]:
    for control in {control.to_name: control for control in controls.clicks}.values():
        with suppress(RefCutError):
            yield image_of_task(task_data, control)
