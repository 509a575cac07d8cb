"""`refcut masks`: puts masks whose tick was forgotten into their annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from refcut_backend.cli.common import ProjectOption, plain, with_project
from refcut_backend.settings import Settings

if TYPE_CHECKING:
    from refcut_backend.wiring import Stores

masks_app = typer.Typer(help="Recover masks that were submitted without the tick.", no_args_is_help=True)


@masks_app.callback()
def masks() -> None:
    """Keeps `recover` a subcommand although it is the only one."""


@masks_app.command()
def recover(
    project: ProjectOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be recovered")] = False,
) -> None:
    """Put masks into annotations that were submitted with their dots alone, as the tick would have."""
    from refcut_backend.wiring import mask_recovery

    def action(stores: Stores, project_id: int, settings: Settings) -> None:
        stores.projects.connection(project_id)  # an unknown project is an error, not "no mask"
        summary = mask_recovery(stores, settings).recover(project_id, change=not dry_run)
        for task_id, annotation_id, label in summary.recovered:
            print(f"task {task_id}, annotation {annotation_id}: {plain(label)}")
        for problem in summary.problems:
            print(f"not recovered: {plain(problem)}")
        print(f"{len(summary.recovered)} masks {'would be ' if dry_run else ''}recovered")
        if summary.problems:
            raise typer.Exit(1)

    with_project(project, action)
