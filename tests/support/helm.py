"""Helm's own engine in a process of its own: it brings Go's runtime, which once ended the process of the tests.

python -m tests.support.helm < [chart, values]      writes the rendered files and the report of the linter as JSON
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.recorded import REPOSITORY


class ChartRefusedError(Exception):
    """Helm does not render the chart with these values; the message is Helm's."""


@dataclass(frozen=True)
class Rendered:
    """What Helm made of a chart. files: text by name. lint: the report of the strict linter."""

    files: dict[str, str]
    lint: dict[str, Any]


def render(chart: Path, values: dict[str, Any]) -> Rendered:
    """Render a release `team` in the namespace `labels`. Raises ChartRefusedError."""
    return _render(json.dumps([str(chart), values]))


@functools.cache
def _render(request: str) -> Rendered:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.helm"],
        input=request,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise ChartRefusedError(answer["refused"])
    return Rendered(**answer)


def main() -> None:
    """Read a request from stdin, write the answer to stdout."""
    import helm_python

    chart, values = json.load(sys.stdin)
    try:
        with helm_python.Chart.load(chart) as loaded:
            files = loaded.render(values, name="team", namespace="labels")
        answer: dict[str, Any] = {"files": files, "lint": helm_python.lint(chart, values, strict=True)}
    except helm_python.HelmError as error:
        answer = {"refused": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
