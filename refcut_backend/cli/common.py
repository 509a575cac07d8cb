"""What all commands have in common: settings, logging, and expected errors as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from model.checkpoints.version_folder import SHIPPED_DIR
from model.errors import ModelError
from refcut_backend.errors import RefCutError
from refcut_backend.logs import set_up_logging
from refcut_backend.settings import Settings, read_settings


def checked_settings() -> Settings:
    """Settings from the environment. Raises ConfigError that names the variable."""
    # The wiring imports most of the backend: `refcut --help` does without it.
    from refcut_backend.wiring import check_settings

    return check_settings(read_settings())


@contextmanager
def explained(status: int = 1) -> Iterator[None]:
    """Expected errors as one line and an exit status."""
    try:
        yield
    except (RefCutError, ModelError) as error:
        print(f"refcut: {error}", file=sys.stderr)
        raise typer.Exit(status) from None


def with_settings(action: Callable[[Settings], None], status: int = 1) -> None:
    """Runs a command's action with the settings."""
    set_up_logging()
    with explained(status):
        action(checked_settings())


PIPE_COLUMNS = 200
"""Width of a table that nobody looks at in a terminal: nothing is cut off."""


def open_console() -> Console:
    """As wide as the terminal, or wide enough for a file or another program."""
    return Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS)


def plain(said: object, style: str = "") -> Text:
    """Text that anybody may have written, without what a terminal would obey; lines stay lines."""
    shown = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(said))
    return Text(shown, style=style)


def settings_table() -> str:
    """One row a setting: variable, default, meaning."""
    rows = ["| variable | default | what it is |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `REFCUT_{name.upper()}` | {_shown(field.default)} | {field.description} |")
    return "\n".join(rows)


def _shown(default: object) -> str:
    if default is None or default == "":
        return "-"
    if isinstance(default, Path) and default == SHIPPED_DIR:
        return "the model that ships"
    return f"`{default}`"
