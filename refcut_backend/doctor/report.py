"""The doctor's findings as a table, one row as soon as it is known."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from refcut_backend.doctor.findings import Finding

MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "wrong": ("✗", "red")}


def print_findings(findings: Iterable[Finding], console: Console) -> bool:
    """Prints them; returns whether nothing was wrong."""
    well = True
    for finding in findings:
        mark, colour = MARKS[finding.state]
        line = Text.assemble((f"{mark} ", colour), (f"{finding.subject:<12} ", "bold"), finding.what)
        console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(Text(f"  {'':<12} → {finding.advice}", style=colour), soft_wrap=True)
        well = well and finding.state != "wrong"
    return well
