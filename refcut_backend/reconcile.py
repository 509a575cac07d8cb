"""Compares the registry with Label Studio: applies what webhooks missed, and removes what is gone there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from refcut_backend.core.reference_choice import Action
from refcut_backend.core.timestamps import earlier
from refcut_backend.follow_annotations import AnnotationFollower
from refcut_backend.label_studio.annotation_source import (
    AnnotationSource,
    GoneError,
    ListedTask,
    open_source,
)
from refcut_backend.store.comparisons import Comparisons
from refcut_backend.store.projects import Connection, Projects
from refcut_backend.store.references import References

log = logging.getLogger("refcut.reconcile")

OVERLAP_S = 60.0
"""Label Studio stamps a change before it commits it: what was stamped so long before the newest may still appear."""

OpenSource = Callable[[int, Connection], AnnotationSource]


@dataclass(frozen=True)
class Compared:
    """What a comparison did: how many tasks' annotations were read, and the annotations whose references went."""

    tasks_read: int = 0
    annotations_gone: tuple[int, ...] = ()


class Reconciler:
    """Compares one project at a time. Comparing again, or two at once, gives the same registry."""

    def __init__(
        self,
        references: References,
        projects: Projects,
        comparisons: Comparisons,
        follower: AnnotationFollower,
        open_source: OpenSource = open_source,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._references = references
        self._projects = projects
        self._comparisons = comparisons
        self._follower = follower
        self._open_source = open_source
        self._now = now
        self._quiet: dict[int, str] = {}

    def compare(self, project_id: int) -> Compared:
        """Brings a project's references up to date. Raises RefCutError when Label Studio does not let it."""
        asked_at = self._now()
        source = self._open_source(project_id, self._projects.connection(project_id))
        try:
            newest = source.newest_change()
            tasks, gone = self._of_interest(source, project_id)
            tasks |= self._changed_and_marked(source, project_id, newest)
            removed = [self._drop(project_id, task_id, asked_at) for task_id in gone]
            removed += [self._read(source, project_id, task, asked_at) for task in tasks.values()]
            self._learn_addresses(source, project_id)
        finally:
            source.close()
        self._comparisons.set_done_until(project_id, newest)
        compared = Compared(len(tasks), tuple(id for ids in removed for id in ids))
        if compared.annotations_gone:
            log.info(
                "references removed: gone in Label Studio",
                extra={"project": project_id, "annotations": list(compared.annotations_gone)},
            )
        return compared

    def compare_task(self, project_id: int, task_id: int) -> bool:
        """The same for one task; returns whether it exists. Raises RefCutError."""
        asked_at = self._now()
        source = self._open_source(project_id, self._projects.connection(project_id))
        try:
            listed = source.tasks([task_id])
            if listed:
                self._read(source, project_id, listed[0], asked_at)
            else:
                self._drop(project_id, task_id, asked_at)
            return bool(listed)
        finally:
            source.close()

    def _of_interest(
        self, source: AnnotationSource, project_id: int
    ) -> tuple[dict[int, ListedTask], list[int]]:
        """Tasks that references come from or that the owner named: those that changed, and the ids of those gone."""
        named = {r.task_id for r in self._references.rules.of_project(project_id) if r.action is Action.ADD}
        ids = self._comparisons.tasks_of_interest(project_id) | {id for id in named if id is not None}
        listed = {task.task.id: task for task in source.tasks(ids)}
        return self._changed(project_id, listed.values()), sorted(ids - listed.keys())

    def _changed_and_marked(
        self, source: AnnotationSource, project_id: int, newest: str
    ) -> dict[int, ListedTask]:
        """Tasks with marked regions among those that changed since the last comparison."""
        until = self._comparisons.done_until(project_id)
        if until and newest == self._quiet.get(project_id):
            return {}
        found: dict[int, ListedTask] = {}
        for part in source.changed_since(earlier(until, OVERLAP_S) if until else ""):
            changed = self._changed(project_id, part)
            found |= {task_id: changed[task_id] for task_id in source.marked(changed)}
        if newest == until:
            # Nothing has changed for a whole interval: whatever was still being committed has been seen now.
            self._quiet[project_id] = newest
        return found

    def _changed(self, project_id: int, listed: Iterable[ListedTask]) -> dict[int, ListedTask]:
        tasks = {task.task.id: task for task in listed}
        known = self._comparisons.said_of(project_id, tasks)
        return {task_id: task for task_id, task in tasks.items() if known.get(task_id) != task.said}

    def _read(
        self, source: AnnotationSource, project_id: int, listed: ListedTask, asked_at: float
    ) -> list[int]:
        """Takes what a task's annotations say now; returns those whose references went."""
        annotations = self._references.annotations
        try:
            found = source.annotations(listed.task.id)
        except GoneError:
            found = []
        config = self._projects.label_config(project_id) or ""
        for annotation in found:
            annotations.listed(self._follower.read(project_id, annotation, listed.task, config), asked_at)
        gone = annotations.unlisted(project_id, listed.task.id, [a.id for a in found], asked_at)
        self._comparisons.confirm(project_id, listed.task.id, listed.said, asked_at)
        return gone

    def _drop(self, project_id: int, task_id: int, asked_at: float) -> list[int]:
        """Removes the references of a task that Label Studio does not have; returns their annotations."""
        gone = self._references.annotations.unlisted(project_id, task_id, (), asked_at)
        self._comparisons.confirm(project_id, task_id, None, asked_at)
        return gone

    def _learn_addresses(self, source: AnnotationSource, project_id: int) -> None:
        """Who an e-mail address in REFCUT_REFERENCE_AUTHORS belongs to."""
        if not self._references.authors.emails:
            return
        unknown = self._references.authors_without_address(project_id)
        addresses = source.emails() if unknown else {}
        for user_id in unknown & addresses.keys():
            self._references.set_address(project_id, user_id, addresses[user_id])
