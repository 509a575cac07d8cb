"""What all commands have in common: settings, logging, and expected errors as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from model.errors import ModelError
from refcut_backend.errors import RefCutError
from refcut_backend.logs import set_up_logging
from refcut_backend.settings import Settings, read_settings


def checked_settings() -> Settings:
    """Settings from the environment. Raises ConfigError that names the variable."""
    # The wiring imports most of the backend: `refcut --help` does without it.
    from refcut_backend.services import check_settings

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
