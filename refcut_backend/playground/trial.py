"""Tries the references of a label on a task: puts both on the playground, for a day."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from refcut_backend.database.projects import Projects
from refcut_backend.errors import BadRequestError, RefCutError
from refcut_backend.images.address import TaskImage, image_of_task
from refcut_backend.images.cache import Image, working_file
from refcut_backend.images.decode import fitted_mask
from refcut_backend.images.uploads import Uploads
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.label_config import read_label_config
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.label_studio.tasks import AnnotationSource, open_source
from refcut_backend.playground.references import PlaygroundReferences, outline_png
from refcut_backend.references.registry import References, StoredReference

log = logging.getLogger("refcut.playground")

LOOK_UP_LIMIT_S = 15.0
_open_briefly = partial(open_source, total_s=LOOK_UP_LIMIT_S)


@dataclass(frozen=True)
class TrialReference:
    """A reference of the project on the playground.

    Attributes:
        name: Its name on the playground.
        image_key: Key of its photograph among the uploads.
        image_name: What people call the photograph.
        outline_png: A picture to lay over the photograph.
    """

    name: str
    image_key: str
    image_name: str
    outline_png: bytes


@dataclass(frozen=True)
class Trial:
    """What was put on the playground.

    Attributes:
        image_key: Key of the task's photograph among the uploads.
        image_name: What people call it.
        references: The references of the label that are in use and can be read.
    """

    image_key: str
    image_name: str
    references: tuple[TrialReference, ...]


class Trials:
    """Copies photographs, at the size that the network sees, and references of projects to the playground."""

    def __init__(
        self,
        references: References,
        projects: Projects,
        uploads: Uploads,
        on_playground: PlaygroundReferences,
        read_image: Callable[[TaskImage], Image],
        max_references: int,
        open_source: Callable[[int, Connection], AnnotationSource] = _open_briefly,
    ) -> None:
        """Connects the trials.

        Args:
            references: The references of all projects.
            projects: Give the label configs and the connections to Label Studio.
            uploads: Get the photographs.
            on_playground: Gets the references.
            read_image: Returns a photograph at full size, (H, W, 3) uint8 RGB; raises RefCutError.
            max_references: Maximum number of references in use per label.
            open_source: Connects to a project in Label Studio.
        """
        self._references = references
        self._projects = projects
        self._uploads = uploads
        self._on_playground = on_playground
        self._read_image = read_image
        self._max_references = max_references
        self._open_source = open_source

    def prepare(self, project_id: int, label: str, task_id: int) -> Trial:
        """Puts a task's photograph and the references of a label on the playground.

        Args:
            project_id: The project.
            label: The label.
            task_id: The task to click on.

        Raises:
            RefCutError: There is no such task or label, or the photograph cannot be read.
        """
        where = TaskImage(project_id, task_id, self._address(project_id, label, task_id))
        key, _ = self._copied(where)
        references = []
        for chosen in self._references.newest(project_id, label, self._max_references):
            stored = self._references.load(chosen.id)
            if stored is None:
                continue
            try:
                references.append(self._reference(stored))
            except RefCutError as error:
                log.warning("reference left out", extra={"version": stored.version, "problem": str(error)})
        return Trial(key, f"task {task_id} of project {project_name(project_id)}", tuple(references))

    def _address(self, project_id: int, label: str, task_id: int) -> str:
        with closing(self._open_source(project_id, self._projects.connection(project_id))) as source:
            tasks = source.tasks([task_id])
        if not tasks:
            raise BadRequestError(
                f"Label Studio has no task {task_id} in project {project_name(project_id)}",
                hint="task ids are shown in the project's list of tasks",
            )
        data = tasks[0].data
        controls = read_label_config(self._projects.label_config(project_id) or "", data)
        control = next((one for one in controls.regions if label in one.labels), None)
        if control is None:
            raise BadRequestError("the task has no such label for masks", hint="reload the page")
        return image_of_task(data, control)

    def _copied(self, where: TaskImage) -> tuple[str, tuple[int, int]]:
        """Stores a photograph for a day; returns its key, and its height and width."""
        data, size_hw = working_file(self._read_image(where))
        return self._uploads.add(data, f"trial-{hashlib.sha256(data).hexdigest()[:40]}"), size_hw

    def _reference(self, stored: StoredReference) -> TrialReference:
        key, size_hw = self._copied(TaskImage(stored.project_id, stored.task_id, stored.image_address))
        positive_hw, negative_hw = fitted_mask(stored.positive_hw, *size_hw), stored.negative_hw
        negative_hw = None if negative_hw is None else fitted_mask(negative_hw, *size_hw)
        name = self._on_playground.add(key, positive_hw, negative_hw)
        shown = f"task {stored.task_id}" if stored.task_id else "a set"
        return TrialReference(name, key, shown, outline_png(positive_hw, negative_hw))
