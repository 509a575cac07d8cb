"""A run of `refcut prelabel`, from the settings to its summary. The workers compute; no torch is imported here."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from types import FrameType
from typing import Annotated

import typer
from sqlalchemy import Engine
from tqdm import tqdm

from refcut_backend.cli.common import plain, with_settings
from refcut_backend.clicks.options import AnswerRules
from refcut_backend.database.engine import open_database
from refcut_backend.database.leases import LeaseHolder, held
from refcut_backend.database.projects import Projects
from refcut_backend.errors import ConfigError, NoReferenceError
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio.predictions import ProjectPredictions
from refcut_backend.prelabeling.project import Outcome, ProjectPrelabeller, ProjectToPrelabel, Summary
from refcut_backend.prelabeling.task import TaskPrelabeller
from refcut_backend.queue.prelabel_queue import PrelabelQueue
from refcut_backend.queue.redis import connect_redis, find_redis
from refcut_backend.references.registry import References
from refcut_backend.references.selection import Authors
from refcut_backend.settings import Settings
from refcut_backend.versions.serving import open_project_versions

LEASE_S = 12.0
"""So long a run that was killed keeps the next one waiting."""
TASKS_NAMED = 10
INTERRUPTED = 130


def run_prelabel(settings: Settings, project_id: int, labels: frozenset[str], show: bool) -> int:
    """Prelabels a project and says on stdout what came of it. Returns the exit status: 0, 1 when a task failed, 130 after
    Ctrl-C. Raises RefCutError when it cannot begin.

    labels: only these; all when it is empty. show: have Label Studio show what this model version has predicted.
    """
    with ExitStack() as stack:
        engine = open_database(settings.database)
        stack.callback(engine.dispose)
        projects = Projects(engine, settings.own_token, settings.label_studio_url)
        predictions = ProjectPredictions(project_id, projects.connection(project_id))
        stack.callback(predictions.close)
        config = projects.label_config(project_id) or ""
        queue = PrelabelQueue(stack.enter_context(connect_redis(find_redis(settings))))
        references = References(engine, Authors.read(settings.reference_authors))
        prelabeller = TaskPrelabeller(queue, references, Addresses(engine), AnswerRules.of(settings))
        _check_labels(labels, prelabeller.labels_with_references(project_id, config))
        if not queue.workers():
            raise ConfigError(
                "no worker is ready", hint="start `refcut run`, or `refcut worker`, and wait for it"
            )
        is_lost = stack.enter_context(_only_run(engine, project_id))
        version = open_project_versions(settings).of(project_id)
        asked = ProjectToPrelabel(project_id, config, version, labels or None)
        run = ProjectPrelabeller(asked, predictions, prelabeller, is_lost)
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
    """Waits for a run that was killed a moment ago to be given up; raises ConfigError when one is under way."""
    holder = LeaseHolder(engine, f"prelabel-{project_id}", LEASE_S)
    deadline = time.monotonic() + LEASE_S + 1
    while not holder.hold():
        if time.monotonic() > deadline:
            raise ConfigError(
                f"project {project_id} is being prelabelled already", hint="wait until it is done"
            )
        time.sleep(0.5)
    with held(holder, LEASE_S) as is_lost:
        yield is_lost


def _work(run: ProjectPrelabeller, at_once: int) -> tuple[Summary, bool]:
    """What was done, and whether Ctrl-C ended it."""
    summary = Summary()
    skipped, wanted = run.skipped_and_open()
    for said in skipped:
        summary.add(said)
    with (
        _stopped_by_ctrl_c(run) as interrupted,
        tqdm(total=len(wanted), unit="task", disable=None) as bar,
        closing(run.work_on(wanted, at_once)) as outcomes,
    ):
        for said in outcomes:
            summary.add(said)
            if said.outcome is not Outcome.LEFT:
                bar.set_postfix(masks=summary.masks, failed=summary.counts[Outcome.FAILED], refresh=False)
                bar.update()
    return summary, interrupted.is_set()


@contextmanager
def _stopped_by_ctrl_c(run: ProjectPrelabeller) -> Iterator[threading.Event]:
    """The first Ctrl-C lets what is being stored be stored, and counted; the second one ends everything."""
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
    for problem, tasks in summary.problems.items():
        named = ", ".join(str(task) for task in sorted(tasks)[:TASKS_NAMED])
        more = f" and {len(tasks) - TASKS_NAMED} more" if len(tasks) > TASKS_NAMED else ""
        print(f"  {plain(problem)} (tasks {named}{more})")


def _how_to_show(version: str) -> str:
    return (
        f"Label Studio does not show them yet: choose {version} in Settings > Annotation > Prelabeling, "
        "or give --show"
    )


def prelabel(
    project: Annotated[int, typer.Option(min=1, help="Label Studio's project id")],
    label: Annotated[
        list[str] | None, typer.Option(help="only this label; may be given several times")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="have Label Studio show these predictions and list their scores")
    ] = False,
) -> None:
    """Mask what the references find on tasks without annotations. Run it again to go on after an interruption."""

    def action(settings: Settings) -> None:
        # Label Studio's SDK takes a second to import: other commands do without.

        status = run_prelabel(settings, project, frozenset(label or ()), show)
        if status:
            raise typer.Exit(status)

    with_settings(action)
