"""What a large project costs: `python -m benchmarks.large_project [--rows 10 1000 10000 100000] [--repeats 5]`.

Processor time of what a click, a webhook, `/status` and a training do in the database, by the number of rows that the
project has in each table; and the longest transaction of what clears missing annotations, because clicks cannot be
written meanwhile. On SQLite, and on PostgreSQL if it is installed; its server's processor time counts too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert, text
from sqlalchemy.orm import DeclarativeBase, Session

from benchmarks.report import print_table
from refcut_backend.clicks.forgotten_masks import ForgottenMasks
from refcut_backend.clicks.log import ClickLog
from refcut_backend.database.click_tables import ClickEvent, UnacceptedMask
from refcut_backend.database.engine import open_database
from refcut_backend.database.tables import AnnotationState, Reference, TaskState
from refcut_backend.references.annotation_states import AnnotationStates
from refcut_backend.references.registry import References
from refcut_backend.training.new_annotations import NewAnnotations
from refcut_backend.training.runs import TrainingRuns
from refcut_backend.training.status import TrainingStatus
from tests.support.postgresql import running_postgresql

PROJECT, OTHER_PROJECT = 7, 8
LABELS = 10
PNG_BYTES = 1500
TASKS_PER_PAGE = 25
TAKEN = 100
MISSING = 0.01
"""Part of the annotations that a listing lacks."""
AT_ONCE = 5000
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def _at(number: int) -> datetime:
    return NEW_YEAR + timedelta(seconds=number)


def _references(number: int) -> dict[str, Any]:
    return {
        "project_id": PROJECT,
        "annotation_id": number,
        "task_id": number,
        "label": f"label {number % LABELS}",
        "to_name": "image",
        "image_address": f"/data/upload/{PROJECT}/{number}.jpg",
        "positive_png": os.urandom(PNG_BYTES),
        "negative_png": None,
        "version": f"{number:012x}",
        "annotated_at": _at(number).isoformat(),
        "author_id": 1 + number % 5,
    }


def _states(number: int) -> dict[str, Any]:
    at = _at(number).isoformat()
    return {
        "project_id": PROJECT,
        "annotation_id": number,
        "task_id": number,
        "updated_at": at,
        "locked_at": float(number),
        "mask_regions": 3,
        "trained_until": at if number % 10 else None,
    }


def _tasks(number: int) -> dict[str, Any]:
    fingerprint = f"{_at(number).isoformat()}/1/0"
    return {
        "project_id": PROJECT,
        "task_id": number,
        "sync_fingerprint": fingerprint,
        "locked_at": float(number),
    }


def _clicks(number: int) -> dict[str, Any]:
    return {
        "project_id": PROJECT,
        "task_id": number,
        "label": f"label {number % LABELS}",
        "region_id": f"rc-{number}",
        "clicks": [[f"dot-{number}-{k}", 10.25 + k, 20.5, True] for k in range(3)],
        "box": None,
        "model_version": "s14-b81af1d8",
        "reference_versions": [f"{number:012x}"] * 4,
        "milliseconds": 60.0,
        "answered_at": _at(number),
    }


def _unaccepted(number: int) -> dict[str, Any]:
    return {
        "project_id": PROJECT,
        "task_id": number,
        "region_id": f"rc-{number}",
        "label": "label 1",
        "to_name": "image",
        "clicks": [["dot", 10.25, 20.5, True]],
        "box": None,
        "width": 640,
        "height": 480,
        "score": 0.9,
        "reference_versions": [],
        "requested_at_s": float(number),
        "rle": os.urandom(PNG_BYTES),
        "annotation_id": number if number % 100 == 0 else None,
    }


CONTENT: dict[type[DeclarativeBase], Callable[[int], dict[str, Any]]] = {
    Reference: _references,
    AnnotationState: _states,
    TaskState: _tasks,
    ClickEvent: _clicks,
    UnacceptedMask: _unaccepted,
}


def fill(engine: Engine, first: int, last: int) -> None:
    """Give the project rows `first` to `last` in every table; a second project gets the last part of them too."""
    for table, row in CONTENT.items():
        for start in range(first, last + 1, AT_ONCE):
            rows = [row(number) for number in range(start, min(start + AT_ONCE, last + 1))]
            others = [one | {"project_id": OTHER_PROJECT} for one in rows[: len(rows) // LABELS]]
            with Session(engine) as session, session.begin():
                session.execute(insert(table), rows + others)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("VACUUM ANALYZE"))


@contextmanager
def _transactions(engine: Engine, seconds: list[float]) -> Iterator[None]:
    """Measures every transaction that writes, from its first write to its end."""
    began: dict[int, float] = {}

    def execute(
        connection: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        _context: object,
        _many: bool,
    ) -> None:
        if not statement.lstrip().upper().startswith("SELECT"):
            began.setdefault(id(connection), time.perf_counter())

    def end(connection: Connection) -> None:
        if (at := began.pop(id(connection), None)) is not None:
            seconds.append(time.perf_counter() - at)

    event.listen(engine, "before_cursor_execute", execute)
    event.listen(engine, "commit", end)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", execute)
        event.remove(engine, "commit", end)


def _server_processes(engine: Engine) -> list[Path]:
    """Where the kernel counts the processor time of the server's processes for us; SQLite has no server."""
    if engine.dialect.name != "postgresql":
        return []
    with engine.connect() as connection:
        pids = connection.scalars(text("SELECT pid FROM pg_stat_activity WHERE usename = current_user")).all()
    return [path for pid in pids if (path := Path(f"/proc/{pid}/schedstat")).exists()]


def cpu_ms(engine: Engine, operation: Callable[[], object], repeats: int) -> float:
    """Median of the processor time of an operation in milliseconds, after one that warms up."""
    operation()
    servers = _server_processes(engine)

    def seconds() -> float:
        return time.process_time() + sum(int(path.read_text().split()[0]) for path in servers) / 1e9

    times = []
    for _ in range(repeats):
        started = seconds()
        operation()
        times.append(seconds() - started)
    return 1000 * statistics.median(times)


def measure(engine: Engine, rows: int, repeats: int) -> dict[str, float]:
    """Measure everything on a project with this many rows."""
    references, clicks, annotations = References(engine), ClickLog(engine), NewAnnotations(engine)
    status = TrainingStatus(TrainingRuns(engine), annotations, engine)
    states, forgotten = AnnotationStates(engine), ForgottenMasks(engine)
    middle = max(rows // 2, 1)
    page = range(middle, middle + TASKS_PER_PAGE)
    seen = {number: _at(number).isoformat() for number in range(1, 1 + min(TAKEN, rows))}
    listed, missing = list(range(1, rows + 1)), max(round(rows * MISSING), 1)
    transactions: list[float] = []

    def absent() -> None:
        del listed[:missing]
        with _transactions(engine, transactions):
            annotations.absent(PROJECT, set(listed), time.time())

    def summary() -> None:
        status.summary()
        forgotten.counts()

    operations: dict[str, Callable[[], object]] = {
        "references of a label, every click": lambda: references.newest(
            PROJECT, f"label {middle % LABELS}", 4
        ),
        "accepted masks, every webhook": lambda: clicks.accept(PROJECT, [f"rc-{middle}"]),
        f"clicks of {TASKS_PER_PAGE} tasks, a training's snapshot": lambda: clicks.last_clicks(PROJECT, page),
        "a task's annotations compared": lambda: states.remove_missing(PROJECT, middle, [middle], 2e9),
        "`/status` by project, every 5 s": summary,
        f"annotations taken by a training, {TAKEN}": lambda: annotations.taken(PROJECT, seen, 2e9),
        "missing annotations cleared": absent,
    }
    found = {name: cpu_ms(engine, operation, repeats) for name, operation in operations.items()}
    return found | {"longest transaction of that (wall)": 1000 * max(transactions, default=0.0)}


def _shown(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds < 10 else f"{milliseconds:.0f}"


def main() -> int:
    """Run it, and print a table per database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10, 1000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, Sequence[float]]] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="refcut-large-project-"))
        databases = {"SQLite": f"sqlite:///{folder}/refcut.db"}
        try:
            databases["PostgreSQL"] = stack.enter_context(running_postgresql())
        except pytest.skip.Exception as reason:
            print(f"without PostgreSQL: {reason}", file=sys.stderr)
        for name, url in databases.items():
            engine = open_database(url)
            stack.callback(engine.dispose)
            columns, filled = [], 0
            for rows in sorted(arguments.rows):
                fill(engine, filled + 1, rows)
                filled = rows
                columns.append(measure(engine, rows, arguments.repeats))
            figures[name] = {operation: [column[operation] for column in columns] for operation in columns[0]}
            print(f"\n{name}, processor time in ms, median of {arguments.repeats}:\n")
            print_table(
                ["rows", *(f"{rows:,}" for rows in sorted(arguments.rows))],
                [[operation, *map(_shown, values)] for operation, values in figures[name].items()],
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
