"""What benchmarks print: Markdown tables, and JSON for whoever wants to keep the figures."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


def machine() -> str:
    """The machine in one line."""
    cores = len(os.sched_getaffinity(0))
    return f"{platform.processor() or platform.machine()}, {cores} cores, torch {torch.__version__}"


def percentile_ms(seconds: Sequence[float], percent: float) -> str:
    """A percentile in whole milliseconds; a dash for no values."""
    return f"{1000 * float(np.percentile(seconds, percent)):.0f}" if len(seconds) else "-"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table; the first column is text, the others are numbers."""
    print("| " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * (len(columns) - 1))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Keeps the figures, if a file is named."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
