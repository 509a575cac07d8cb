"""`refcut prelabel`: searches all tasks of a project without annotations for the labels that have references.

The command only hands out tasks and stores predictions; the workers compute, so nothing here imports torch.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from types import FrameType

from sqlalchemy import Engine
from tqdm import tqdm

from refcut_backend.cli.common import plain
from refcut_backend.database.leases import LeaseHolder, held
from refcut_backend.errors import ConfigError, NoReferenceError
from refcut_backend.label_studio.predictions import ProjectPredictions
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.prelabeling.project import Outcome, ProjectPrelabeller, ProjectToPrelabel, Summary
from refcut_backend.queue.prelabel_queue import PrelabelQueue
from refcut_backend.queue.redis import connect_redis, find_redis
from refcut_backend.settings import Settings
from refcut_backend.versions.serving import open_project_versions
from refcut_backend.wiring import open_stores, task_prelabeller

LEASE_S = 12.0
"""Seconds that the lease of a run lasts: after a run was killed, the next one waits for at most this time."""
TASKS_NAMED = 10
INTERRUPTED = 130


def run_prelabel(settings: Settings, project_id: int, labels: frozenset[str], show: bool) -> int:
    """Pre-label a project and print a summary.

    Args:
        settings: From the environment.
        project_id: The project.
        labels: Only these labels; empty for all labels with references.
        show: Have Label Studio show the predictions of this model version.

    Returns:
        The exit status: 0, 1 if a task failed, 130 after Ctrl-C.

    Raises:
        RefCutError: If the run cannot begin.
    """
    with ExitStack() as stack:
        stores = stack.enter_context(open_stores(settings))
        projects = stores.projects
        predictions = ProjectPredictions(project_id, projects.connection(project_id))
        stack.callback(predictions.close)
        config = projects.label_config(project_id) or ""
        connection = stack.enter_context(connect_redis(find_redis(settings)))
        prelabeller = task_prelabeller(stores, settings, connection)
        _check_labels(labels, prelabeller.labels_with_references(project_id, config))
        if not PrelabelQueue(connection).workers():
            raise ConfigError(
                "no worker is ready", hint="start `refcut run`, or `refcut worker`, and wait for it"
            )
        is_lost = stack.enter_context(_only_run(stores.engine, project_id))
        version = open_project_versions(settings).of(project_id)
        request = ProjectToPrelabel(project_id, config, version, labels or None)
        run = ProjectPrelabeller(request, predictions, prelabeller, is_lost)
        summary, was_interrupted = _work(run, prelabeller.at_once())
        _report(summary, version)
        if show:
            predictions.show(version)
        elif summary.masks and predictions.shown_version() != version:
            print(_how_to_show(version))
        if is_lost():
            raise ConfigError("another run has taken over", hint="run it again when that one has ended")
        return INTERRUPTED if was_interrupted else int(bool(summary.problems))


def _check_labels(wanted: frozenset[str], known: list[str]) -> None:
    hint = 'mark a region "Reference" and submit it; `refcut references list` shows what there is'
    if not known:
        raise NoReferenceError("no label of this project has a reference that is in use", hint=hint)
    unknown = sorted(wanted - set(known))
    if unknown:
        raise NoReferenceError(
            f"no reference of {', '.join(unknown)} is in use", hint=f"there are some of {', '.join(known)}"
        )


@contextmanager
def _only_run(engine: Engine, project_id: int) -> Iterator[Callable[[], bool]]:
    """Makes sure that this is the project's only run; waits for the lease of a run that was killed a moment ago."""
    holder = LeaseHolder(engine, f"prelabel-{project_id}", LEASE_S)
    deadline = time.monotonic() + LEASE_S + 1
    while not holder.hold():
        if time.monotonic() > deadline:
            raise ConfigError(
                f"project {project_name(project_id)} is being prelabelled already",
                hint="wait until it is done",
            )
        time.sleep(0.5)
    with held(holder, LEASE_S) as is_lost:
        yield is_lost


def _work(run: ProjectPrelabeller, at_once: int) -> tuple[Summary, bool]:
    """Returns the summary, and whether Ctrl-C ended the run."""
    summary = Summary()
    skipped, wanted = run.skipped_and_open()
    for result in skipped:
        summary.add(result)
    with (
        _stopped_by_ctrl_c(run) as interrupted,
        tqdm(total=len(wanted), unit="task", disable=None) as bar,
        closing(run.work_on(wanted, at_once)) as outcomes,
    ):
        for result in outcomes:
            summary.add(result)
            if result.outcome is not Outcome.LEFT:
                bar.set_postfix(masks=summary.masks, failed=summary.counts[Outcome.FAILED], refresh=False)
                bar.update()
    return summary, interrupted.is_set()


@contextmanager
def _stopped_by_ctrl_c(run: ProjectPrelabeller) -> Iterator[threading.Event]:
    """The first Ctrl-C finishes the predictions that are being stored; the second one ends the process at once."""
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def stop(_signum: int, _frame: FrameType | None) -> None:
        interrupted.set()
        run.stop()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _report(summary: Summary, version: str) -> None:
    counts = summary.counts
    nothing = f", nothing found on {summary.without_masks}" if summary.without_masks else ""
    print(f"{counts[Outcome.DONE]} tasks prelabelled by {version}: {summary.masks} masks{nothing}")
    for outcome, count in counts.items():
        if count and outcome is not Outcome.DONE:
            print(f"{count} {outcome}")
    for sentence, tasks_without in summary.references_left_out.items():
        print(f"  reference left out on {tasks_without} tasks: {plain(sentence)}")
    for problem, tasks in summary.problems.items():
        named = ", ".join(str(task) for task in sorted(tasks)[:TASKS_NAMED])
        more = f" and {len(tasks) - TASKS_NAMED} more" if len(tasks) > TASKS_NAMED else ""
        print(f"  {plain(problem)} (tasks {named}{more})")


def _how_to_show(version: str) -> str:
    return (
        f"Label Studio does not show them yet: choose {version} in Settings > Annotation > Prelabeling, "
        "or give --show"
    )
