"""The `refcut` command: every subcommand begins here, with its options and its help text.

Imports inside the functions keep `refcut --help` fast and torch out of the web process.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from refcut_backend import __version__
from refcut_backend.cli.common import ProjectOption, checked_settings, find_project
from refcut_backend.cli.common import explained as _explained
from refcut_backend.cli.common import with_settings as _with_settings
from refcut_backend.cli.export import export
from refcut_backend.cli.masks import masks_app
from refcut_backend.cli.models import models_app
from refcut_backend.cli.projects import projects_app
from refcut_backend.cli.references import references_app
from refcut_backend.cli.status import status
from refcut_backend.cli.train import train
from refcut_backend.errors import CANNOT_START, ConfigError, reasons_table
from refcut_backend.logs import set_up_logging
from refcut_backend.queue.rq_jobs import FUNCTIONS, MODEL_QUEUES, TRAINING_QUEUE, read_queue_names
from refcut_backend.settings import Settings
from refcut_backend.system.child_processes import end_with_parent

app = typer.Typer(help="RefCut for Label Studio.", no_args_is_help=True, add_completion=False)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"RefCut {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """RefCut for Label Studio."""


app.add_typer(references_app, name="references")
app.add_typer(models_app, name="models")
app.add_typer(projects_app, name="projects")
app.command()(train)
app.command()(export)
app.command()(status)
app.add_typer(masks_app, name="masks")


def _redis_url(settings: Settings) -> str:
    if settings.redis_url is None:
        raise ConfigError("REFCUT_REDIS_URL is not set", hint="set it, or start everything with `refcut run`")
    return settings.redis_url


@app.command()
def prelabel(
    project: ProjectOption,
    label: Annotated[list[str] | None, typer.Option(help="only this label; may be repeated")] = None,
    show: Annotated[
        bool, typer.Option("--show", help="have Label Studio show these predictions and their scores")
    ] = False,
) -> None:
    """Pre-label all tasks without annotations. Run it again to resume after an interruption."""
    from refcut_backend.cli.prelabel import run_prelabel

    def action(settings: Settings) -> None:
        status = run_prelabel(settings, find_project(settings, project), frozenset(label or ()), show)
        if status:
            raise typer.Exit(status)

    _with_settings(action)


@app.command()
def run() -> None:
    """Start Redis (unless REFCUT_REDIS_URL is set), workers and web server on this machine."""
    from refcut_backend.cli.run import Supervisor

    set_up_logging()
    with _explained():
        status = Supervisor(checked_settings()).run()
    raise typer.Exit(status)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="folder for the state of the demo")] = Path("refcut-demo"),
    label_studio: Annotated[Path, typer.Option(help="path of the label-studio command")] = Path(
        ".venv-label-studio/bin/label-studio"
    ),
    label_studio_port: Annotated[int, typer.Option(help="port of Label Studio")] = 8080,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="only make Label Studio's tables, for a quick first start")
    ] = False,
) -> None:
    """Start everything together with a real Label Studio that has two projects to click in."""
    from refcut_backend.cli.demo import prepare_demo, run_demo

    set_up_logging()
    with _explained():
        if prepare:
            prepare_demo(label_studio.resolve())
            return
        status = run_demo(checked_settings(), folder.resolve(), label_studio.resolve(), label_studio_port)
    raise typer.Exit(status)


@app.command()
def serve() -> None:
    """Start the web server that Label Studio calls."""
    import uvicorn

    # After a graceful stop uvicorn raises the signal again, which would look like a crash in the exit status.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    end_with_parent()

    from refcut_backend.api.app import THREADS_SWITCH_AFTER_S, create_app
    from refcut_backend.api.auth import Access, warn_when_open
    from refcut_backend.api.connections import connection_limits, server_options
    from refcut_backend.api.hosts import AllowedNames
    from refcut_backend.cli.run import check_port_is_free
    from refcut_backend.queue.redis import connect_redis
    from refcut_backend.wiring import wire_backend

    def action(settings: Settings) -> None:
        check_port_is_free(settings.host, settings.port)
        wiring = wire_backend(settings, connect_redis(_redis_url(settings)))
        warn_when_open(settings)
        sys.setswitchinterval(THREADS_SWITCH_AFTER_S)
        uvicorn.run(
            create_app(wiring, settings.request_max_bytes, Access.of(settings), AllowedNames.of(settings)),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.click_timeout_s + 1,
            **server_options(connection_limits(settings.request_max_bytes)),
        )

    _with_settings(action, starts_backend=True)


@app.command()
def worker(
    queues: str = typer.Option(
        ",".join(MODEL_QUEUES), help=f"queues to work on, comma separated: {', '.join(FUNCTIONS)}"
    ),
    name: str = typer.Option("", help="unique name of this process; random when empty", hidden=True),
) -> None:
    """Start a worker: it loads the model and answers clicks; pre-labelling and preloading run while no click waits."""
    from refcut_backend.queue.heartbeats import new_worker_name

    end_with_parent()
    set_up_logging()
    with _explained(CANNOT_START):
        settings = checked_settings()
        names, own_name = read_queue_names(queues), name or new_worker_name()
        if TRAINING_QUEUE in names:
            from refcut_backend.training.process_priority import lower_priority

            lower_priority(settings.train_threads)  # before torch is imported
            from refcut_backend.training.process import run_training_worker

            status = run_training_worker(settings, _redis_url(settings), own_name)
        else:
            from refcut_backend.inference.process import run_worker

            status = run_worker(settings, _redis_url(settings), names, own_name)
    raise typer.Exit(status)


@app.command()
def doctor(
    project: Annotated[
        str | None,
        typer.Option(
            help="check only this project (its number, 7#2, or its address); default: all known projects"
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="one JSON object per finding and line, for programs")
    ] = False,
) -> None:
    """Check what clicks and references need, from Redis to every reference's photograph. Each problem comes with advice.

    Label Studio is asked to send one webhook: each project's title is stored again as it is.
    """
    from rich.console import Console

    from refcut_backend.cli.doctor import machine_checks, print_findings, print_json, run_checks
    from refcut_backend.cli.doctor_project import project_checks

    end_with_parent()

    def action(settings: Settings) -> None:
        project_id = None if project is None else find_project(settings, project)
        checks = machine_checks(settings) + project_checks(settings, project_id)
        findings = run_checks(checks)
        if not (print_json(findings) if json else print_findings(findings, Console())):
            raise typer.Exit(1)

    _with_settings(action, needs_database=False)


@app.command()
def settings(
    effective: Annotated[
        bool,
        typer.Option("--effective", help="the values in force, without secrets, instead of the defaults"),
    ] = False,
) -> None:
    """Print every setting with its default, as a Markdown table; or the values in force."""
    from refcut_backend.cli.common import effective_settings, open_console, settings_table

    if not effective:
        print(settings_table())
        return
    with _explained():
        open_console().print(effective_settings(checked_settings()))


@app.command(hidden=True)
def reasons() -> None:
    """Print every reason code with its meaning and remedy, as a Markdown table."""
    print(reasons_table())
