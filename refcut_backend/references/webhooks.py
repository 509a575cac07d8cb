"""Turns webhooks, and the extra parameters of /setup, into changes of the reference registry."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.database.projects import Projects
from refcut_backend.errors import BadMaskError, ConfigError, LabelConfigError, RefCutError
from refcut_backend.images.address import image_of_task
from refcut_backend.label_studio.label_config import ProjectControls, read_label_config
from refcut_backend.label_studio.payloads import AnnotationPayload, ListedTask, Webhook, WebhookProject
from refcut_backend.label_studio.regions import check_result, count_mask_regions, second_labels
from refcut_backend.references.annotation_states import AnnotationUpdate
from refcut_backend.references.owner_rules import as_text, read_extra_params
from refcut_backend.references.parse import LabelReference, read_references
from refcut_backend.references.registry import References
from refcut_backend.references.selection import Author

log = logging.getLogger("refcut.references")


_NO_PARAMS = hashlib.sha256(b"").hexdigest()


def follow_extra_params(
    references: References, projects: Projects, project_id: int, extra_params: object
) -> bool:
    """Replaces the owner's rules by those in the extra parameters, if the parameters have changed.

    Invalid parameters are logged once, and the last valid ones stay in force.

    Args:
        references: The registry whose rules are replaced.
        projects: Remembers the digest of the last parameters.
        project_id: The project.
        extra_params: `extra_params` of /setup: an object, JSON text, or None.

    Returns:
        Whether valid parameters changed.
    """
    text = "" if extra_params is None else as_text(extra_params)
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    if digest == (projects.extra_params_digest(project_id) or _NO_PARAMS):
        return False
    try:
        found = read_extra_params(extra_params)
    except ConfigError as error:
        log.warning("extra parameters not used", extra={"project": project_id, "problem": str(error)})
        projects.set_extra_params_digest(project_id, digest)
        return False
    if found.unknown_keys:
        log.warning(
            "unknown keys in the extra parameters",
            extra={"project": project_id, "keys": list(found.unknown_keys)},
        )
    references.rules.replace_extra_params(project_id, found)
    references.remove_no_longer_added(project_id)
    references.annotations.require_listing(project_id, [rule.task_id for rule in found.rules if rule.task_id])
    projects.set_extra_params_digest(project_id, digest)
    log.info("extra parameters applied", extra={"project": project_id, "rules": len(found.rules)})
    return True


STATES = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED")
DELETED = "ANNOTATIONS_DELETED"
TASKS_DELETED = "TASKS_DELETED"
PROJECT_UPDATED = "PROJECT_UPDATED"

EmailOf = Callable[[int, int], str | None]
"""Maps (project id, user id) to the user's e-mail address; None if it is not known."""


class AnnotationFollower:
    """Applies webhooks. Runs after the acknowledgement, for which Label Studio waits at most one second.

    A webhook and its changes are stored in one transaction. `reconcile.py` makes up for webhooks that were lost.
    """

    def __init__(
        self, references: References, projects: Projects, email_of: EmailOf = lambda project, user: None
    ) -> None:
        """Wires the follower.

        Args:
            references: The registry to change.
            projects: The projects' label configs.
            email_of: Called only if REFCUT_REFERENCE_AUTHORS contains e-mail addresses.
        """
        self._references = references
        self._projects = projects
        self._email_of = email_of

    def apply(self, webhook: Webhook) -> None:
        """Updates the registry. A webhook that cannot be used is logged with its reason and changes nothing."""
        if webhook.project is None:
            return
        try:
            self._apply(webhook, webhook.project)
        except (RefCutError, SQLAlchemyError, UnicodeError) as error:
            reason, problem = "error", type(error).__name__
            if isinstance(error, RefCutError):
                reason, problem = error.code, str(error)
            log.warning(
                "webhook not used",
                extra={"project": webhook.project.id, "reason": reason, "problem": problem},
            )

    def _apply(self, webhook: Webhook, project: WebhookProject) -> None:
        annotations = self._references.annotations
        if webhook.action in STATES:
            config = project.label_config or self._projects.label_config(project.id) or ""
            for annotation, task in webhook.states():
                annotations.apply_webhook(self.read(project.id, annotation, task, config), webhook.action)
        elif webhook.action == DELETED:
            annotations.remove_annotations(project.id, [a.id for a in webhook.annotations], DELETED)
        elif webhook.action == TASKS_DELETED:
            annotations.remove_tasks(project.id, [t.id for t in webhook.tasks], TASKS_DELETED)
        elif webhook.action == PROJECT_UPDATED:
            self._references.events.record(project.id, PROJECT_UPDATED, project.id, project.updated_at)
            self._follow_label_config(project)

    def _follow_label_config(self, project: WebhookProject) -> None:
        config = project.label_config
        if config and self._projects.label_config_changed(project.id, config, project.updated_at):
            self.report_lost_labels(project.id, config)

    def follow_extra_params(self, project_id: int, extra_params: object) -> bool:
        """Applies the extra parameters of /setup; returns whether valid parameters changed."""
        return follow_extra_params(self._references, self._projects, project_id, extra_params)

    def report_lost_labels(self, project_id: int, label_config: str) -> None:
        """Logs the labels that have references but are no longer in the label config."""
        try:
            controls = read_label_config(label_config)
        except LabelConfigError as error:
            log.warning("label config", extra={"project": project_id, "problem": str(error)})
            return
        known = controls.all_region_labels
        lost = set() if known is None else self._references.labels(project_id) - known
        if lost:
            log.warning(
                "references of labels that are no longer in the label config are not used",
                extra={"project": project_id, "labels": sorted(lost)},
            )

    def read(
        self, project_id: int, annotation: AnnotationPayload, task: ListedTask, label_config: str
    ) -> AnnotationUpdate:
        """Reads the references of an annotation, and logs why it or its marked regions are left out.

        Args:
            project_id: The annotation's project.
            annotation: The annotation with its regions.
            task: The annotation's task.
            label_config: The project's label config (XML).

        Raises:
            LabelConfigError: The label config cannot be parsed.
        """
        controls = read_label_config(label_config, task.data)
        added = self._references.rules.added_labels(project_id, task.id, annotation.id)
        found: list[tuple[LabelReference, str]] = []
        problems: list[str] = []
        mask_regions = second = 0
        try:
            check_result(annotation.result)
        except BadMaskError as error:
            problems.append(f"the annotation is left out: {error}")
        if not annotation.was_cancelled and not problems:
            mask_regions = count_mask_regions(annotation.result, controls)
            second = len(second_labels(annotation.result, controls))
            read = read_references(annotation.result, controls.roles, added)
            problems.extend(read.problems)
            for reference in read.references:
                try:
                    found.append((reference, _image_of(reference, task, controls)))
                except RefCutError as error:
                    problems.append(f"{reference.label}: {error}")
        where = {"project": project_id, "task": task.id, "annotation": annotation.id}
        if found:
            log.info("reference read", extra=where | {"labels": [r.label for r, _ in found]})
        for problem in problems:
            log.warning("reference not used", extra=where | {"problem": problem})
        return AnnotationUpdate(
            project_id=project_id,
            annotation_id=annotation.id,
            task_id=task.id,
            updated_at=annotation.updated_at,
            found=tuple(found),
            author=self._author(project_id, annotation) if found else Author(annotation.author_id),
            problem="; ".join(problems) or None,
            task_fingerprint=task.fingerprint
            if task.total_annotations + task.cancelled_annotations == 1
            else None,
            mask_regions=mask_regions,
            second_labels=second,
        )

    def _author(self, project_id: int, annotation: AnnotationPayload) -> Author:
        user_id = annotation.author_id
        needs_address = bool(self._references.authors.emails) and user_id is not None
        return Author(user_id, self._email_of(project_id, user_id) if needs_address and user_id else None)


def _image_of(reference: LabelReference, task: ListedTask, controls: ProjectControls) -> str:
    control = controls.region_control(reference.label, reference.to_name)
    if control is None:
        raise LabelConfigError(
            "the label is no longer in the label config", hint="its references are not used"
        )
    return image_of_task(task.data, control)
