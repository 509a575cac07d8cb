"""Measurements in the database: the runs of each project, and the figures of each reference."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, delete, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.database import tables
from refcut_backend.worth.figures import ReferenceFigures, TaskFigures

SILENT_S = 60.0
"""A run whose process was silent for so long has lost it; another process may lead it."""
GIVEN_UP_S = 300.0
"""A run that no other process has taken up by then has failed."""
MAX_LOSSES = 3
"""A run that loses so many processes is the likely reason, and has failed."""
MESSAGE_LENGTH = 2000
PROBLEMS_KEPT = 20
REQUEST_TRIES = 3


class Outcome(StrEnum):
    """How a run ended. The values are stored in the database and shown on the page."""

    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class WorthRun:
    """A run at one moment. The attributes are those of the table `WorthRun`; times are seconds since 1970.

    Attributes:
        is_silent: Whether it has lost the process that led it.
    """

    id: str
    project_id: int
    label: str | None
    requested_at: float
    step: int = 0
    steps: int = 0
    outcome: Outcome | None = None
    message: str = ""
    problems: Sequence[str] = ()
    is_silent: bool = False
    losses: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.outcome is not None


INTERRUPTED = "the process that led the measurement has ended; start it again"
LOST_AGAIN = f"{MAX_LOSSES} processes have ended while they led the measurement; their logs may say why"


class WorthStore:
    """Creates and changes runs, and keeps figures; shared by all processes on one database."""

    def __init__(self, engine: Engine, now: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._now = now

    def request(self, project_id: int, label: str | None) -> tuple[WorthRun, bool]:
        """Create a run, or find the active one of the project. Returns the run, and whether it is new.

        A run that has lost its process is replaced; ended runs are removed.
        """
        for _ in range(REQUEST_TRIES):
            known = self.latest(project_id)
            if known is not None and not known.has_ended and not known.is_silent:
                return known, False
            row = self._new_row(project_id, label)
            silent = tables.WorthRun.seen_at < self._now() - SILENT_S
            over = tables.WorthRun.active_project.is_(None) | silent
            try:
                with Session(self._engine) as session, session.begin():
                    session.execute(
                        delete(tables.WorthRun).where(tables.WorthRun.project_id == project_id, over)
                    )
                    session.add(row)
                    session.flush()
                    return self._read(row), True
            except IntegrityError:
                continue  # another process has just created one
        raise RuntimeError("measurements of the project start and end faster than one can be created")

    def take_silent(self) -> list[WorthRun]:
        """Take up the runs that have lost their process, for the caller to lead.

        Each gets a new id, so that a process that was only slow learns that the run is no longer its own.
        """
        silent = tables.WorthRun.seen_at < self._now() - SILENT_S
        given_up = tables.WorthRun.seen_at < self._now() - GIVEN_UP_S
        query = select(tables.WorthRun).where(tables.WorthRun.active_project.is_not(None), silent, ~given_up)
        with Session(self._engine) as session:
            lost = session.scalars(query).all()
        return [taken for row in lost if (taken := self._take(row)) is not None]

    def _take(self, lost: tables.WorthRun) -> WorthRun | None:
        losses = (lost.losses or 0) + 1
        if losses >= MAX_LOSSES:
            self.end(self._read(lost), Outcome.FAILED, LOST_AGAIN)
            return None
        with Session(self._engine) as session, session.begin():
            same = tables.WorthRun.id == lost.id, tables.WorthRun.seen_at == lost.seen_at
            if not session.execute(delete(tables.WorthRun).where(*same)).rowcount:  # type: ignore[attr-defined]
                return None
            row = self._new_row(lost.project_id, lost.label)
            row.losses = losses
            session.add(row)
            session.flush()
            return self._read(row)

    def _new_row(self, project_id: int, label: str | None) -> tables.WorthRun:
        return tables.WorthRun(
            id=f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(self._now()))}-{secrets.token_hex(3)}",
            project_id=project_id,
            active_project=project_id,
            label=label,
            requested_at=self._now(),
            seen_at=self._now(),
            problems=[],
        )

    def latest(self, project_id: int) -> WorthRun | None:
        """The latest run of a project; None if there was none."""
        query = (
            select(tables.WorthRun)
            .where(tables.WorthRun.project_id == project_id)
            .order_by(tables.WorthRun.requested_at.desc(), tables.WorthRun.id.desc())
            .limit(1)
        )
        with Session(self._engine) as session:
            row = session.scalar(query)
            return None if row is None else self._read(row)

    def progress(self, run: WorthRun, step: int | None = None, steps: int | None = None) -> bool:
        """Write a sign of life and the progress. Returns False if the run was stopped or given up."""
        known = {"step": step, "steps": steps}
        return self._change(run, {name: value for name, value in known.items() if value is not None})

    def end(self, run: WorthRun, outcome: Outcome, message: str, problems: Sequence[str] = ()) -> bool:
        """End a run. Returns False if it had ended before."""
        kept = list(problems[:PROBLEMS_KEPT])
        if len(problems) > PROBLEMS_KEPT:
            kept.append(f"and {len(problems) - PROBLEMS_KEPT} more")
        return self._change(
            run,
            {
                "active_project": None,
                "ended_at": self._now(),
                "outcome": outcome.value,
                "message": message[:MESSAGE_LENGTH],
                "problems": kept,
            },
        )

    def stop(self, project_id: int) -> bool:
        """Stop the active run of a project. Returns whether there was one."""
        run = self.latest(project_id)
        return run is not None and not run.has_ended and self.end(run, Outcome.STOPPED, "stopped")

    def save(
        self,
        project_id: int,
        figures: Iterable[ReferenceFigures],
        present: Collection[tuple[str, str]],
    ) -> None:
        """Store figures in place of those that the same model gave before.

        Args:
            project_id: The project.
            figures: What was measured.
            present: (label, version) of all references of the project; figures of others are removed.
        """
        worth = tables.ReferenceWorth
        with Session(self._engine) as session, session.begin():
            known = session.execute(
                select(worth.label, worth.version).where(worth.project_id == project_id).distinct()
            )
            gone = [(label, version) for label, version in known if (label, version) not in present]
            for row in gone:
                session.execute(
                    delete(worth).where(
                        worth.project_id == project_id, tuple_(worth.label, worth.version) == row
                    )
                )
            for one in figures:
                if (one.label, one.version) in present:
                    session.merge(_row(project_id, one))

    def of_project(self, project_id: int) -> dict[tuple[str, str], list[ReferenceFigures]]:
        """Figures of a project's references by (label, version): one entry per version of the model."""
        query = select(tables.ReferenceWorth).where(tables.ReferenceWorth.project_id == project_id)
        found: dict[tuple[str, str], list[ReferenceFigures]] = {}
        with Session(self._engine) as session:
            for row in session.scalars(query):
                found.setdefault((row.label, row.version), []).append(_figures(row))
        return found

    def _change(self, run: WorthRun, values: dict[str, Any]) -> bool:
        statement = (
            update(tables.WorthRun)
            .where(tables.WorthRun.id == run.id, tables.WorthRun.active_project.is_not(None))
            .values(seen_at=self._now(), **values)
        )
        with Session(self._engine) as session, session.begin():
            return bool(session.execute(statement).rowcount)  # type: ignore[attr-defined]

    def _read(self, row: tables.WorthRun) -> WorthRun:
        outcome, message = None if row.outcome is None else Outcome(row.outcome), row.message or ""
        silent_s = self._now() - row.seen_at
        if outcome is None and silent_s > GIVEN_UP_S:
            outcome, message = Outcome.FAILED, INTERRUPTED
        return WorthRun(
            id=row.id,
            project_id=row.project_id,
            label=row.label,
            requested_at=row.requested_at,
            step=row.step or 0,
            steps=row.steps or 0,
            outcome=outcome,
            message=message,
            problems=tuple(row.problems or ()),
            is_silent=outcome is None and silent_s > SILENT_S,
            losses=row.losses or 0,
        )


def _row(project_id: int, one: ReferenceFigures) -> tables.ReferenceWorth:
    return tables.ReferenceWorth(
        project_id=project_id,
        label=one.label,
        version=one.version,
        model_version=one.model_version,
        measured_at=one.measured_at,
        tasks=[
            [task.task_id, task.alone, task.without, task.others, int(task.trained)] for task in one.tasks
        ],
        problems=list(one.problems[:PROBLEMS_KEPT]),
    )


def _figures(row: tables.ReferenceWorth) -> ReferenceFigures:
    tasks = (
        TaskFigures(task_id, alone, without, others, bool(trained))
        for task_id, alone, without, others, trained in row.tasks
    )
    return ReferenceFigures(
        row.label, row.version, row.model_version, row.measured_at, tuple(tasks), tuple(row.problems or ())
    )
