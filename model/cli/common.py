"""Shared by the commands: the parser, and options that several commands have. Imports no torch by itself.

Bad input ends in one line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn

from model.checkpoints.version_folder import SHIPPED_DIR

PROGRAM = "python -m model"
"""How usage texts and errors call the program; `refcut-model` is the same."""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line; the usage is shown by `--help` only."""

    def error(self, message: str) -> NoReturn:
        """Print the message as one line and exit with status 2."""
        self.exit(2, f"error: {' '.join(message.split())}\n")


def command_parser(command: str, description: str | None, *, allow_abbrev: bool = True) -> OneLineParser:
    """The parser of one command.

    Args:
        command: Name as in `model.cli.main.COMMANDS`.
        description: Text for `--help`, shown as it is: usually the module's docstring.
        allow_abbrev: Whether options may be shortened.
    """
    return OneLineParser(
        prog=f"{PROGRAM} {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=allow_abbrev,
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`; the default is the network that ships."""
    parser.add_argument(
        "--weights",
        type=Path,
        default=SHIPPED_DIR,
        help=f"folder of a version, or file of `{PROGRAM} convert` (default: the weights that ship)",
    )


def add_threads(parser: argparse.ArgumentParser, help_text: str = "CPU threads") -> None:
    """Add `--threads`; the default is every core."""
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help=f"{help_text} (default: all)"
    )
