"""`refcut train`: requests a training of a project, waits for it, or shows the trainings of all projects."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from refcut_backend.cli.common import SomeProjectOption, find_project, open_console, plain, with_settings
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.settings import Settings

if TYPE_CHECKING:
    from refcut_backend.clicks.log import ClickCost
    from refcut_backend.training.new_annotations import AnnotationCounts
    from refcut_backend.training.runs import Run, TrainingRuns


POLL_S = 1.0
RUNS_SHOWN = 10


def train(
    project: SomeProjectOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="wait for the end; exit status 1 if it failed")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="only show the trainings")] = False,
) -> None:
    """Train a project on its annotations. The new model serves only if it is better on the holdout."""
    if project is None and not status:
        raise typer.BadParameter("a project or --status is required", param_hint="--project")

    def action(settings: Settings) -> None:
        project_id = None if project is None else find_project(settings, project)
        if status:
            _show(settings, project_id)
        elif project_id is not None:
            _train(settings, project_id, wait)

    with_settings(action)


def _train(settings: Settings, project: int, wait: bool) -> None:
    from refcut_backend.queue.redis import connect_redis
    from refcut_backend.training.runs import RequestedBy
    from refcut_backend.wiring import open_stores, wire_training

    with open_stores(settings) as stores:
        connection = connect_redis(settings.redis_url) if settings.redis_url else None
        wiring = wire_training(stores, settings, connection)
        run, is_new = wiring.requests.request(project, RequestedBy.COMMAND)
        print(f"training {run.id}" + ("" if is_new else " is under way already"), flush=True)
        if wait:
            _wait(wiring.runs, run)


def _wait(runs: TrainingRuns, run: Run) -> None:
    """Prints a line whenever something has changed."""
    from refcut_backend.training.runs import Outcome

    printed = ""
    while True:
        now = runs.of(run.id)
        if now is None:
            print("the training no longer exists: the project was forgotten")
            raise typer.Exit(1)
        line = _progress(now)
        if line != printed:
            print(line, flush=True)
            printed = line
        if now.has_ended:
            raise typer.Exit(1 if now.outcome is Outcome.FAILED else 0)
        time.sleep(POLL_S)


def _progress(run: Run) -> str:
    from refcut_backend.training.runs import Stage

    if run.has_ended:
        version = f" {run.version}" if run.version else ""
        return f"{run.outcome}{version}: {run.message}" if run.outcome else str(run.stage)
    if run.stage is Stage.QUEUED:
        return "queued (a worker takes it: `refcut run` or `refcut worker --queues training`)"
    steps = f" {run.step}/{run.steps}" if run.steps else ""
    eta = f", about {run.eta_s:.0f} s left" if run.eta_s is not None else ""
    metrics = "".join(f", {name} {_short(value)}" for name, value in run.metrics.items())
    return f"{run.stage}{steps}{eta}{metrics}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show(settings: Settings, project: int | None) -> None:
    from refcut_backend.clicks.log import ClickLog
    from refcut_backend.training.new_annotations import AnnotationCounts, NewAnnotations
    from refcut_backend.training.runs import TrainingRuns
    from refcut_backend.wiring import open_stores

    with open_stores(settings) as stores:
        runs, counts = TrainingRuns(stores.engine), NewAnnotations(stores.engine).by_project()
        projects = sorted(counts.keys() | runs.projects()) if project is None else [project]
        console = open_console()
        for project_id in projects:
            print(_status_line(project_id, counts.get(project_id, AnnotationCounts())))
            latest = runs.latest(project_id, RUNS_SHOWN)
            if latest:
                console.print(_table(latest))
            costs = ClickLog(stores.engine).clicks_per_mask(project_id)
            if costs:
                console.print(_cost_table(costs))
        if not projects:
            print("no annotations yet")


def _status_line(project: int, counts: AnnotationCounts) -> str:
    return f"project {project_name(project)}: {counts.annotations} annotations to learn from, {counts.new} new or changed"


def _table(runs: list[Run]) -> Table:
    table = Table("run", "requested by", "requested at (UTC)", "status", "skipped")
    for run in runs:
        requested_at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(run.requested_at))
        left_out = plain("\n".join(run.left_out), style="yellow")
        table.add_row(run.id, run.requested_by, requested_at, plain(_progress(run)), left_out)
    return table


def _cost_table(costs: list[ClickCost]) -> Table:
    """How many clicks accepted masks took: whether a version of the model saves work."""
    table = Table("label", "model version", "accepted masks", "clicks per mask")
    for cost in costs:
        clicks = f"{cost.clicks_per_mask:.1f}"
        table.add_row(plain(cost.label), cost.model_version, str(cost.masks), clicks)
    return table
