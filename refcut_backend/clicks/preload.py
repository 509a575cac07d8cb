"""When a task is opened: has a worker get ready what its first click will need."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.errors import RefCutError
from refcut_backend.images.address import image_of_task
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio.label_config import ProjectControls, read_label_config
from refcut_backend.queue.messages import PreloadJob
from refcut_backend.references.registry import References

log = logging.getLogger("refcut.click")

MAX_REFERENCES = 8
MAX_IMAGES = 4


class PreloadSender(Protocol):
    """Whatever carries the wish to a worker."""

    def ask(self, job: PreloadJob) -> bool: ...


class TaskOpener:
    """Never raises, and is best called after Label Studio has its answer: the task opens no later for it."""

    def __init__(
        self, queue: PreloadSender, references: References, addresses: Addresses, max_references: int
    ) -> None:
        self._queue = queue
        self._references = references
        self._addresses = addresses
        self._max_references = max_references

    def task_opened(
        self, project_id: int, task_id: int, task_data: dict[str, Any], label_config: str
    ) -> None:
        """Asks for the images that can be clicked on, and for the references of the labels that may be clicked."""
        try:
            controls = read_label_config(label_config)
            images = tuple(self._addresses.hide(address) for address in _images(task_data, controls))
            references = tuple(self._newest(project_id, controls))
            if images:
                self._queue.ask(
                    PreloadJob(project_id, task_id, images[:MAX_IMAGES], references[:MAX_REFERENCES])
                )
        except (RefCutError, SQLAlchemyError) as error:
            log.warning("task not prepared", extra={"task": task_id, "problem": type(error).__name__})

    def _newest(self, project_id: int, controls: ProjectControls) -> Iterator[int]:
        """The newest reference of each label, then the second of each, and so on."""
        labels = sorted({label for control in controls.clicks for label in control.labels})
        found = [self._references.newest(project_id, label, self._max_references) for label in labels]
        for place in range(self._max_references):
            yield from (of_label[place].id for of_label in found if place < len(of_label))


def _images(task_data: dict[str, Any], controls: ProjectControls) -> Iterator[str]:
    for field in dict.fromkeys(control.image_field for control in controls.clicks):
        with suppress(RefCutError):
            yield image_of_task(task_data, field)
