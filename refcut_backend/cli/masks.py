"""`refcut masks`: puts masks whose tick was forgotten into their annotations, and takes second labels from masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from refcut_backend.cli.common import ProjectOption, plain, with_project
from refcut_backend.settings import Settings

if TYPE_CHECKING:
    from refcut_backend.wiring import Stores

masks_app = typer.Typer(
    help="Recover masks that were submitted without the tick, and repair masks with two labels.",
    no_args_is_help=True,
)


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


@masks_app.command()
def repair(
    project: ProjectOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be repaired")] = False,
) -> None:
    """Take the second label from masks that were accepted while a label for clicks was chosen."""
    from refcut_backend.clicks.second_labels import remove_second_labels

    def action(stores: Stores, project_id: int, _settings: Settings) -> None:
        summary = remove_second_labels(stores.projects, project_id, change=not dry_run)
        for one in summary.repaired:
            print(f"task {one.task_id}, annotation {one.annotation_id}: {one.masks} masks")
        for problem in summary.problems:
            print(f"not repaired: {plain(problem)}")
        total = sum(one.masks for one in summary.repaired)
        print(f"{total} masks {'would be ' if dry_run else ''}repaired")
        if summary.problems:
            raise typer.Exit(1)

    with_project(project, action)
