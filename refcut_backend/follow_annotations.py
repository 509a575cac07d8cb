"""Keeps the reference registry in step with Label Studio's annotations, webhook by webhook."""

from __future__ import annotations

import logging

from refcut_backend.core.image_address import image_of_task
from refcut_backend.core.label_config import ProjectControls, read_label_config
from refcut_backend.core.references import LabelReference, read_references
from refcut_backend.errors import RefCutError
from refcut_backend.payloads import AnnotationPayload, TaskPayload, Webhook
from refcut_backend.store.projects import Projects
from refcut_backend.store.references import References

log = logging.getLogger("refcut.references")

STATES = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")
DELETED = "ANNOTATIONS_DELETED"
TASKS_DELETED = "TASKS_DELETED"


class AnnotationFollower:
    """Applies webhooks. Runs after the acknowledgement: Label Studio waits for that at most a second."""

    def __init__(self, references: References, projects: Projects) -> None:
        self._references = references
        self._projects = projects

    def apply(self, webhook: Webhook) -> None:
        """Updates the registry; what cannot be used is logged with its reason and changes nothing."""
        if webhook.project is None:
            return
        project_id = webhook.project.id
        try:
            if webhook.action in STATES and webhook.annotation is not None and webhook.task is not None:
                config = webhook.project.label_config or self._projects.label_config(project_id) or ""
                self._follow(project_id, webhook.annotation, webhook.task, config)
            elif webhook.action == DELETED:
                self._references.remove_annotations(project_id, [a.id for a in webhook.annotations])
            elif webhook.action == TASKS_DELETED:
                self._references.remove_tasks(project_id, [t.id for t in webhook.tasks])
        except RefCutError as error:
            log.warning(
                "webhook not used", extra={"project": project_id, "reason": error.code, "problem": str(error)}
            )

    def _follow(
        self, project_id: int, annotation: AnnotationPayload, task: TaskPayload, label_config: str
    ) -> None:
        controls = read_label_config(label_config)
        found = [] if annotation.was_cancelled else read_references(annotation.result, controls.roles)
        self._references.replace_annotation(
            project_id,
            annotation.id,
            annotation.updated_at,
            task.id,
            [(reference, self._image_of(reference, task, controls)) for reference in found],
        )
        if found:
            labels = [reference.label for reference in found]
            log.info("reference taken", extra={"project": project_id, "task": task.id, "labels": labels})

    @staticmethod
    def _image_of(reference: LabelReference, task: TaskPayload, controls: ProjectControls) -> str:
        return image_of_task(task.data, controls.mask_control(reference.label, reference.to_name).image_field)
