"""Shared by all commands: settings and logging at the start, expected errors as one line, tables and safe text."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from model.checkpoints.version_folder import SHIPPED_DIR
from model.errors import ModelError
from refcut_backend.cli.running_backends import require_database, settings_of_backend
from refcut_backend.errors import RefCutError
from refcut_backend.logs import set_up_logging
from refcut_backend.settings import Settings, read_settings

if TYPE_CHECKING:
    from refcut_backend.wiring import Stores


_NOT_SETTINGS = frozenset({"REFCUT_LABEL_STUDIO", "REFCUT_LIFELINE_FD"})
"""Other variables with the prefix of settings: the command for the tests, and a pipe between processes."""


def checked_settings() -> Settings:
    """Settings from the environment. Unknown variables with the prefix of settings are named on stderr.

    Raises:
        ConfigError: If a setting is invalid. The message names the variable, never its value.
    """
    for name, meant in _unknown_variables(os.environ).items():
        advice = f"is {meant} meant?" if meant else "`refcut settings` lists all"
        print(f"refcut: {name} is no setting; {advice}", file=sys.stderr)
    # The wiring imports most of the backend; `refcut --help` must not wait for that.
    from refcut_backend.wiring import check_settings

    return check_settings(read_settings())


def _unknown_variables(environment: Iterable[str]) -> dict[str, str | None]:
    """Unknown variables with the prefix of settings: name to the setting that is probably meant, or None."""
    known = [f"REFCUT_{name.upper()}" for name in Settings.model_fields]
    unknown = {name for name in environment if name.startswith("REFCUT_")} - {*known, *_NOT_SETTINGS}
    return {name: next(iter(get_close_matches(name, known, 1, 0.8)), None) for name in sorted(unknown)}


@contextmanager
def explained(status: int = 1) -> Iterator[None]:
    """Print an expected error as one line on stderr and exit with `status`."""
    try:
        yield
    except (RefCutError, ModelError) as error:
        print(f"refcut: {error}", file=sys.stderr)
        raise typer.Exit(status) from None


def with_settings(
    action: Callable[[Settings], None], *, starts_backend: bool = False, needs_database: bool = True
) -> None:
    """Run the body of a command: logging is set up, settings are read, expected errors are printed.

    Args:
        action: The body; it gets the checked settings.
        starts_backend: Whether the command is part of a backend. Others are about a backend that runs or has run: they
            find its state and never make an empty one.
        needs_database: Whether a command that is no part of a backend ends if there is no database yet.
    """
    set_up_logging()
    with explained():
        settings = checked_settings()
        if not starts_backend:
            settings = settings_of_backend(settings)
            if needs_database:
                require_database(settings)
        action(settings)


ProjectOption = Annotated[
    str, typer.Option("--project", help="Label Studio's project number (7), 7#2, or the project's address")
]
SomeProjectOption = Annotated[
    str | None,
    typer.Option("--project", help="Label Studio's project number (7), 7#2, or the project's address"),
]


def find_project(settings: Settings, text: str) -> int:
    """The project id of the project that an option names.

    Raises:
        ConfigError: If the text names no project, or several, and the message lists them; or if there is no database.
    """
    from refcut_backend.wiring import open_stores

    require_database(settings)
    with open_stores(settings) as stores:
        return stores.projects.find(text)


def with_project(text: str, action: Callable[[Stores, int, Settings], None]) -> None:
    """Run the body of a command about one project, as `with_settings` does.

    Args:
        text: The project as the option names it.
        action: The body; it gets the open stores, the project id and the settings.
    """
    from refcut_backend.wiring import open_stores

    def run(settings: Settings) -> None:
        with open_stores(settings) as stores:
            action(stores, stores.projects.find(text), settings)

    with_settings(run)


PIPE_COLUMNS = 200
"""Width of a table that goes to a file or to another program, in characters: wide enough that nothing is cut off."""


def open_console() -> Console:
    """A console for tables: as wide as the terminal, or `PIPE_COLUMNS` if stdout is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS)


def plain(value: object, style: str = "") -> Text:
    """Text from an untrusted source (labels, messages), with control characters replaced; line breaks stay."""
    shown = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    return Text(shown, style=style)


def settings_table() -> str:
    """A Markdown table with one row per setting: variable, default, meaning. `docs/settings.md` holds it."""
    rows = ["| variable | default | what it is |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `REFCUT_{name.upper()}` | {_shown(field.default)} | {field.description} |")
    return "\n".join(rows)


HIDDEN = "(hidden)"
_CREDENTIALS = re.compile(r"//[^/@]*@")


def effective_settings(settings: Settings) -> Table:
    """A table of the values in force and where each comes from. Secrets are not shown.

    Args:
        settings: From the environment.
    """
    table = Table("variable", "value", "from")
    for name in Settings.model_fields:
        is_set = name in settings.model_fields_set
        table.add_row(
            f"REFCUT_{name.upper()}",
            plain(_without_secrets(getattr(settings, name))),
            "environment" if is_set else "default",
        )
    return table


def _without_secrets(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, SecretStr):
        return HIDDEN
    if isinstance(value, Path):
        return str(value.resolve())
    return _CREDENTIALS.sub(f"//{HIDDEN}@", str(value)).partition("?")[0]


def _shown(default: object) -> str:
    if default is None or default == "":
        return "-"
    if isinstance(default, Path) and default == SHIPPED_DIR:
        return "the model that ships"
    return f"`{default}`"
