"""Puts masks whose tick was forgotten into their annotations, as the tick would have: the mask comes, its dots go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from refcut_backend.clicks.forgotten_masks import ForgottenMasks, KeptMask
from refcut_backend.database.projects import Projects
from refcut_backend.errors import BadMaskError, LabelConfigError, RefCutError
from refcut_backend.label_studio.label_config import MaskKind, ProjectControls, read_label_config
from refcut_backend.label_studio.polygons import OutlineSettings
from refcut_backend.label_studio.regions import GivenMask, check_result, mask_regions
from refcut_backend.label_studio.tasks import ApiAnnotations, GoneError, open_source

log = logging.getLogger("refcut.recover_masks")


@dataclass
class RecoverySummary:
    """What a recovery did.

    Attributes:
        recovered: (task id, annotation id, label) of every mask that its annotation has now, or would get.
        problems: Why a mask could not be put back, one sentence each.
    """

    recovered: list[tuple[int, int, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class MaskRecovery:
    """Recovers the masks of one project after another."""

    def __init__(
        self, forgotten: ForgottenMasks, projects: Projects, prefer: MaskKind, outlines: OutlineSettings
    ) -> None:
        """Prepares the recovery.

        Args:
            forgotten: The masks that were kept.
            projects: Address, token and label config of the projects.
            prefer: Form of masks whose label is in several controls, as for clicks.
            outlines: How closely polygons follow masks, as for clicks.
        """
        self._forgotten = forgotten
        self._projects = projects
        self._prefer = prefer
        self._outlines = outlines

    def recover(self, project_id: int, *, only_marked: bool = False, change: bool = True) -> RecoverySummary:
        """Recovers the masks of a project.

        Args:
            project_id: The project.
            only_marked: Look only at masks that a webhook showed to be missing, not at all that were not accepted.
            change: False finds the masks and changes nothing.

        Raises:
            RefCutError: The project is unknown, its label config cannot be parsed, or Label Studio cannot be read.
        """
        summary = RecoverySummary()
        by_task: dict[int, list[KeptMask]] = {}
        for kept in self._forgotten.of_project(project_id, only_marked=only_marked):
            by_task.setdefault(kept.task_id, []).append(kept)
        if not by_task:
            return summary
        label_config = self._projects.label_config(project_id) or ""
        read_label_config(label_config)
        source = open_source(project_id, self._projects.connection(project_id))
        try:
            data_of = {task.id: task.data for task in source.tasks(by_task)}
            for task_id, masks in by_task.items():
                controls = read_label_config(label_config, data_of.get(task_id, {}))
                self._recover_task(source, project_id, task_id, masks, controls, summary, change=change)
        finally:
            source.close()
        return summary

    def _recover_task(
        self,
        source: ApiAnnotations,
        project_id: int,
        task_id: int,
        masks: Sequence[KeptMask],
        controls: ProjectControls,
        summary: RecoverySummary,
        *,
        change: bool,
    ) -> None:
        try:
            annotations = source.annotations(task_id)
        except GoneError:
            for kept in masks:
                self._forgotten.recovered(project_id, kept)
            return
        recovered: dict[str, KeptMask] = {}
        for annotation in annotations:
            try:
                check_result(annotation.result)
            except BadMaskError as error:
                summary.problems.append(f"task {task_id}, annotation {annotation.id}: {error}")
                continue
            missing = [kept for kept in masks if kept.is_forgotten_in(annotation.result)]
            result, found = annotation.result, []
            for kept in missing:
                try:
                    result = self._with_mask(project_id, kept, result, controls)
                except RefCutError as error:
                    summary.problems.append(f"task {task_id}, annotation {annotation.id}: {error}")
                else:
                    found.append(kept)
            if found and change:
                source.replace_result(annotation.id, result)
            summary.recovered += [(task_id, annotation.id, kept.label) for kept in found]
            recovered |= {kept.region_id: kept for kept in found}
        if change:  # only now: several annotations may lack the same mask
            for kept in recovered.values():
                self._forgotten.recovered(project_id, kept)

    def _with_mask(
        self,
        project_id: int,
        kept: KeptMask,
        result: Sequence[dict[str, Any]],
        controls: ProjectControls,
    ) -> list[dict[str, Any]]:
        """Returns an annotation's `result` with a mask in place of its prompts. Raises RefCutError if that cannot be."""
        given: GivenMask | None = self._forgotten.mask(project_id, kept)
        if given is None:
            raise LabelConfigError(f"the mask of '{kept.label}' is gone", hint="click the object again")
        control = controls.mask_control(kept.label, kept.to_name, self._prefer)
        regions = mask_regions(kept.region_id, kept.label, control, given, self._outlines)
        return [item for item in result if str(item.get("id")) not in kept.prompt_ids] + regions


def recover_all(recovery: MaskRecovery, forgotten: ForgottenMasks) -> Callable[[], None]:
    """Returns what recovers the marked masks of all projects, and logs what it did; it never raises RefCutError."""

    def run() -> None:
        for project_id in forgotten.counts():
            try:
                summary = recovery.recover(project_id, only_marked=True)
            except RefCutError as error:
                log.warning("no masks recovered", extra={"project": project_id, "problem": str(error)})
                continue
            for task_id, annotation_id, label in summary.recovered:
                log.info(
                    "a mask without a tick was recovered",
                    extra={
                        "project": project_id,
                        "task": task_id,
                        "annotation": annotation_id,
                        "label": label,
                    },
                )
            for problem in summary.problems:
                log.warning("a mask was not recovered", extra={"project": project_id, "problem": problem})

    return run
