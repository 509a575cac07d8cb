"""What commands print: tables that lose nothing in a pipe, and text that the terminal does not obey."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

PIPE_COLUMNS = 200
"""Width of a table that nobody looks at in a terminal: nothing is cut off."""


def open_console() -> Console:
    """As wide as the terminal, or wide enough for a file or another program."""
    return Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS)


def plain(said: object, style: str = "") -> Text:
    """Text that anybody may have written, without what a terminal would obey; lines stay lines."""
    shown = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(said))
    return Text(shown, style=style)
