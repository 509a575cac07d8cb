"""Synchronises the reference registry with Label Studio's API.

It applies changes whose webhook was lost, and removes references whose annotation no longer exists. A comparison reads
as little as possible:

    one request       says whether anything may have changed since the last comparison; if not, it ends here
    tasks that        were annotated, or lost their last annotation, since the last comparison
    tasks that        a comparison could not finish, or whose references a webhook removed
    all tasks with    only if tasks were deleted, because a deleted task is on no list; if Label Studio went back in
      references        time; after a failed comparison, at the first one of a process, and once per hour

It reads the annotations only of tasks whose fingerprint differs from `TaskState.sync_fingerprint`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.database.projects import Projects
from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import ListedTask, Timestamp
from refcut_backend.label_studio.tasks import (
    AnnotationSource,
    GoneError,
    ProjectOverview,
    TaskRange,
    UnreadableError,
    open_source,
)
from refcut_backend.references.registry import References
from refcut_backend.references.selection import Action
from refcut_backend.references.sync_states import SyncStates
from refcut_backend.references.webhooks import AnnotationFollower

log = logging.getLogger("refcut.reconcile")

OVERLAP_S = 60.0
"""Label Studio sets `updated_at` before it commits. A change this much older than the newest one may still appear."""
CLOCKS_DIFFER_S = 3600.0
"""If Label Studio's newest change is in the future by our clock, changes this much before our present are read again."""

LIST_ALL_EVERY_S = 3600.0
"""How often all tasks with references are listed although nothing says that they changed."""
COMPARISON_LIMIT_S = 900.0
"""Longest time for reading Label Studio in one comparison. The next one continues where it was interrupted."""

_open_for_comparison = partial(open_source, total_s=COMPARISON_LIMIT_S)

OpenSource = Callable[[int, Connection], AnnotationSource]


@dataclass(frozen=True)
class ComparisonResult:
    """Result of a comparison.

    Attributes:
        tasks_read: Number of tasks whose annotations were read.
        annotations_gone: Ids of the annotations whose references were removed.
    """

    tasks_read: int = 0
    annotations_gone: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Scope:
    """What may have changed since the last comparison, and what the next one needs to know.

    Attributes:
        overview: The project when the comparison began.
        tasks: The tasks whose deletion the next comparison can notice.
        is_settled: Nothing had changed for a whole interval, so every change that was being committed was seen.
        since: Tasks that changed at that time or later may differ; empty for all tasks, None for no task.
        may_lack_tasks: Tasks may have been deleted since the last comparison.
        listed_at: When all tasks with references were listed last, seconds since 1970.
    """

    overview: ProjectOverview
    tasks: TaskRange
    is_settled: bool
    since: Timestamp | None
    may_lack_tasks: bool
    listed_at: float


class Reconciler:
    """Compares one project at a time. Repeated and concurrent comparisons give the same registry."""

    def __init__(
        self,
        references: References,
        projects: Projects,
        sync_states: SyncStates,
        follower: AnnotationFollower,
        open_source: OpenSource = _open_for_comparison,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._references = references
        self._projects = projects
        self._sync_states = sync_states
        self._follower = follower
        self._open_source = open_source
        self._now = now
        self._last_scopes: dict[int, _Scope] = {}

    def compare(self, project_id: int) -> ComparisonResult:
        """Brings a project's references up to date.

        Raises:
            RefCutError: Label Studio cannot be read. Changes that were found before the error stay applied.
        """
        requested_at, before = self._now(), self._last_scopes.pop(project_id, None)
        label_config = self._label_config(project_id)
        source = self._open_source(project_id, self._projects.connection(project_id))
        try:
            scope = self._find_scope(source, project_id, before, requested_at)
            tasks, gone = self._tasks_to_check(source, project_id, scope)
            removed = [self._remove_task(project_id, task_id, requested_at) for task_id in gone]
            removed += [self._read(source, project_id, task) for task in tasks]
            read = {task.id for task in tasks}
            for part in self._changed_since(source, project_id, scope.since):
                removed += [self._read(source, project_id, task) for task in part if task.id not in read]
                read |= {task.id for task in part}
            self._learn_emails(source, project_id)
        finally:
            source.close()
        newest = scope.overview.newest_change
        if _is_future(newest, requested_at):
            # A clock that was wrong for a while must not hide what changes until its time has come.
            newest = Timestamp(datetime.fromtimestamp(requested_at - CLOCKS_DIFFER_S, UTC))
        if self._sync_states.set_synced_until(project_id, newest, label_config):
            self._last_scopes[project_id] = scope
        result = ComparisonResult(len(read), tuple(annotation for part in removed for annotation in part))
        if result.annotations_gone:
            log.info(
                "references removed: gone in Label Studio",
                extra={"project": project_id, "annotations": list(result.annotations_gone)},
            )
        return result

    def compare_task(self, project_id: int, task_id: int) -> bool:
        """Brings the references of one task up to date; returns whether the task exists. Raises RefCutError."""
        requested_at = self._now()
        source = self._open_source(project_id, self._projects.connection(project_id))
        try:
            listed = source.tasks([task_id])
            if listed:
                self._read(source, project_id, listed[0])
            else:
                self._remove_task(project_id, task_id, requested_at)
            return bool(listed)
        finally:
            source.close()

    def _find_scope(
        self, source: AnnotationSource, project_id: int, before: _Scope | None, now: float
    ) -> _Scope:
        """Finds out what may have changed since the last comparison; `before` is None if that was not complete.

        All tasks may have changed the first time, after a change of the label config, and if the newest change is older
        than at the last comparison: a backup was restored, or the newest task was deleted.
        """
        overview = source.overview()
        if before is not None and now >= before.listed_at + LIST_ALL_EVERY_S:
            before = None
        until, newest = self._sync_states.synced_until(project_id), overview.newest_change
        is_same = before is not None and before.overview == overview
        if before is not None and is_same and before.is_settled and until:
            return replace(before, since=None, may_lack_tasks=False)
        since = until.minus(OVERLAP_S) if until and until <= newest else Timestamp()
        if before is None:
            tasks, may_lack_tasks = source.tasks_up_to(None), True
        else:
            tasks = source.tasks_up_to(before.tasks.last_id)
            may_lack_tasks = tasks != before.tasks or not since
            if tasks.tasks != overview.tasks:
                tasks = source.tasks_up_to(None)
        is_settled = is_same and newest == until and not _is_future(newest, now)
        listed_at = now if before is None or may_lack_tasks else before.listed_at
        return _Scope(overview, tasks, is_settled, since, may_lack_tasks, listed_at)

    def _tasks_to_check(
        self, source: AnnotationSource, project_id: int, scope: _Scope
    ) -> tuple[list[ListedTask], list[int]]:
        """Returns tasks that changed, and ids of those that are gone, among those that no list of changes can show."""
        rules = self._references.rules.of_project(project_id)
        added = {rule.task_id for rule in rules if rule.action is Action.ADD and rule.task_id is not None}
        ids = self._sync_states.unfinished_tasks(project_id)
        if scope.may_lack_tasks:
            ids |= added | self._sync_states.tasks_with_references(project_id)
        else:
            known = self._sync_states.fingerprints(project_id, added)
            ids |= {task_id for task_id in added if known.get(task_id) is None}
        listed = source.tasks(ids)
        return self._changed(project_id, listed), sorted(ids - {task.id for task in listed})

    def _changed_since(
        self, source: AnnotationSource, project_id: int, since: Timestamp | None
    ) -> Iterator[list[ListedTask]]:
        """Yields tasks whose annotations changed, except those that a webhook covered.

        A comparison that is interrupted reads only the rest when it is repeated.
        """
        if since is None:
            return
        for part in source.annotated_since(since):
            yield self._changed(project_id, part)
        last_known = self._sync_states.last_known_task(project_id)
        if since and last_known is not None:
            # Of tasks without annotations, those that had some: not what was imported a moment ago.
            for part in source.emptied_since(since, last_known):
                known = self._sync_states.fingerprints(project_id, [task.id for task in part])
                yield [task for task in part if known.get(task.id, task.fingerprint) != task.fingerprint]

    def _changed(self, project_id: int, listed: Sequence[ListedTask]) -> list[ListedTask]:
        fingerprints = self._sync_states.fingerprints(project_id, [task.id for task in listed])
        return [task for task in listed if fingerprints.get(task.id) != task.fingerprint]

    def _read(self, source: AnnotationSource, project_id: int, task: ListedTask) -> list[int]:
        """Applies a task's annotations as they are now; returns those whose references were removed.

        If they cannot be read, that task alone is left out, and what is known about it stays.
        """
        unforeseen: Exception | None = None
        try:
            return self._read_annotations(source, project_id, task)
        except UnreadableError as error:
            problem = str(error)
        except (RefCutError, SQLAlchemyError):
            raise
        except Exception as error:
            problem, unforeseen = f"its annotations cannot be read ({type(error).__name__})", error
        if self._sync_states.note_problem(project_id, task.id, problem):
            where = {"project": project_id, "task": task.id}
            extra = where | {"problem": problem}
            log.warning("task left out of the comparison", extra=extra, exc_info=unforeseen)
        return []

    def _read_annotations(self, source: AnnotationSource, project_id: int, task: ListedTask) -> list[int]:
        annotations, requested_at = self._references.annotations, self._now()
        try:
            found = source.annotations(task.id)
        except GoneError:
            found = []
        label_config = self._label_config(project_id)
        for annotation in found:
            change = self._follower.read(project_id, annotation, task, label_config)
            annotations.apply_listing(change, requested_at)
        gone = annotations.remove_missing(project_id, task.id, [a.id for a in found], requested_at)
        self._sync_states.confirm(project_id, task.id, task.fingerprint, requested_at, label_config)
        return gone

    def _remove_task(self, project_id: int, task_id: int, requested_at: float) -> list[int]:
        """Removes the references of a task that does not exist; returns their annotations."""
        label_config = self._label_config(project_id)
        gone = self._references.annotations.remove_missing(project_id, task_id, (), requested_at)
        self._sync_states.confirm(project_id, task_id, None, requested_at, label_config)
        return gone

    def _label_config(self, project_id: int) -> str:
        return self._projects.label_config(project_id) or ""

    def _learn_emails(self, source: AnnotationSource, project_id: int) -> None:
        """Stores authors' e-mail addresses, which are needed if REFCUT_REFERENCE_AUTHORS contains any."""
        if not self._references.authors.emails:
            return
        unknown = self._references.authors_without_email(project_id)
        emails = source.emails() if unknown else {}
        for user_id in unknown & emails.keys():
            self._references.set_email(project_id, user_id, emails[user_id])


def _is_future(updated_at: Timestamp, now: float) -> bool:
    """Whether a time of Label Studio's clock is in the future by ours."""
    return updated_at > Timestamp(datetime.fromtimestamp(now, UTC))
