"""`refcut prelabel`: masks on tasks that nobody has clicked on, as predictions in Label Studio."""

from __future__ import annotations

from typing import Annotated

import typer

from refcut_backend.command_line import with_settings
from refcut_backend.settings import Settings


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
        from refcut_backend.prelabel.command import run_prelabel

        status = run_prelabel(settings, project, frozenset(label or ()), show)
        if status:
            raise typer.Exit(status)

    with_settings(action)
