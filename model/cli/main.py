"""The one command of the library: `python -m model COMMAND ...`, installed as `refcut-model`.

A command is a module of `model.cli` with a function `main(argv)`. It is imported when it runs: `--help` stays quick, as
torch is imported by the commands that need it only.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from model.cli.common import PROGRAM, OneLineParser

COMMANDS = {
    "segment": "cut an object out of one picture with clicks and references",
    "train": "train a network",
    "near-copies": "list training photographs that are near copies of photographs in val splits",
    "cache-features": "compute the frozen features that train-reader reads",
    "train-reader": "train the reader of references alone",
    "finetune": "train a version on a snapshot of a project's annotations",
    "evaluate": "measure clicks with and without references on annotated sets",
    "compare": "compare two versions on the holdout of a snapshot",
    "calibrate": "correct the expected IoU of a version by its evaluation",
    "average": "average the weights of two versions",
    "take-reader": "put a trained reader into a version",
    "convert": "convert a SimpleClick or RefCut checkpoint",
    "prepare-runtime": "write OpenVINO's form of a network into a cache",
    "make-synthetic-data": "draw a small training set of coloured shapes",
}
"""Every command with its line in `--help`."""
RESUMED = frozenset({"train", "cache-features", "train-reader", "finetune", "evaluate"})
"""Commands that go on where an earlier run with the same output folder was stopped."""
STOPPED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        argv: Name of the command, then its own arguments; None reads the process's command line.

    Raises:
        SystemExit: With status 0 after `--help`, 2 if there is no such command or its input cannot be used, 130 after
            Ctrl-C.
    """
    command, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        print(_help())
        return
    if command not in COMMANDS:
        OneLineParser(prog=PROGRAM).error(f"there is no command '{command}'; see {PROGRAM} --help")
    try:
        module = importlib.import_module(f"model.cli.{command.replace('-', '_')}")
        module.main(arguments)
    except KeyboardInterrupt:
        more = "; the same command goes on from what it has saved" if command in RESUMED else ""
        print(f"\nstopped by Ctrl-C{more}", file=sys.stderr)
        raise SystemExit(STOPPED) from None


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join([f"usage: {PROGRAM} COMMAND ...", "", "Commands:", *lines, "", _MORE])


_MORE = f"{PROGRAM} COMMAND --help describes a command."
