"""`refcut projects`: list the projects that have called /setup, and forget one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from refcut_backend.cli.common import ProjectOption, open_console, plain, with_project, with_settings
from refcut_backend.errors import ConfigError
from refcut_backend.label_studio.project_ids import number_of, project_name
from refcut_backend.settings import Settings

if TYPE_CHECKING:
    from refcut_backend.wiring import Stores

projects_app = typer.Typer(
    help="List the projects of all Label Studios, and forget one.", no_args_is_help=True
)


@projects_app.command("list")
def list_projects() -> None:
    """List all projects: the name that `--project` takes, the Label Studio, and when the project was created."""
    from refcut_backend.database.project_identity import shown_time
    from refcut_backend.wiring import open_stores

    def action(settings: Settings) -> None:
        with open_stores(settings) as stores:
            known = stores.projects.all()
        table = Table("project", "number", "Label Studio", "created")
        for one in known:
            number = str(number_of(one.project_id))
            table.add_row(
                project_name(one.project_id), number, plain(one.label_studio), shown_time(one.created)
            )
        if known:
            open_console().print(table)
        else:
            print("no Label Studio has called /setup yet")

    with_settings(action)


@projects_app.command()
def forget(
    project: ProjectOption,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Delete a project's references, pins, clicks, trainings and holdout. Its versions stay in the model store."""

    def action(stores: Stores, project_id: int, _settings: Settings) -> None:
        if project_id not in stores.projects.known():
            raise ConfigError(f"project {project_name(project_id)} is not known")
        if not yes and not (sys.stdin.isatty() and typer.confirm(f"forget {project_name(project_id)}?")):
            raise ConfigError("nothing was deleted", hint="--yes confirms it")
        stores.projects.forget(project_id)
        print(f"project {project_name(project_id)} is forgotten")

    with_project(project, action)
