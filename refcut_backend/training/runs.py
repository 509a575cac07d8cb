"""The runs of trainings in the database: one row per run, at most one active run per project.

    queued -> snapshot -> training -> judging -> done | failed        (`Stage`; the database stores these words)

A worker that lost its run (it was killed, or its heartbeat was too old) may come back. Every change therefore names its
attempt, and changes nothing if another attempt has begun.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Engine, Update, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.database.tables import TrainingRun


class Stage(StrEnum):
    """What a run is doing. The values are stored in the database and shown in `/status`."""

    QUEUED = "queued"
    SNAPSHOT = "snapshot"
    TRAINING = "training"
    COMPARING = "judging"
    DONE = "done"
    FAILED = "failed"


class Outcome(StrEnum):
    """How a run ended. The values are stored in the database and shown in `/status`.

    PROMOTED: the new model serves. NOT_PROMOTED: the model before still serves, and the message says why. FAILED: there
    is no new model.
    """

    PROMOTED = "promoted"
    NOT_PROMOTED = "kept"
    FAILED = "failed"


class RequestedBy(StrEnum):
    """Who or what requested a training. The values are stored in the database and shown in `/status`."""

    ANNOTATIONS = "annotations"
    SCHEDULE = "schedule"
    BUTTON = "button"
    COMMAND = "command"
    PAGE = "page"


RERUNS = 1
"""How often a run is started again after its worker died."""
MESSAGE_LENGTH = 2000
ASK_TRIES = 3


@dataclass(frozen=True)
class Run:
    """A run at one moment. The attributes are those of the table `TrainingRun`; times are seconds since 1970."""

    id: str
    project_id: int
    requested_by: str
    requested_at: float
    stage: Stage
    attempt: int = 0
    worker: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    step: int = 0
    steps: int = 0
    eta_s: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    outcome: Outcome | None = None
    message: str | None = None
    version: str | None = None
    seen_at: float | None = None
    curve: Sequence[Sequence[float | None]] = ()

    @property
    def has_ended(self) -> bool:
        """Whether the run is done or failed."""
        return self.ended_at is not None


@dataclass(frozen=True)
class Claim:
    """A worker's right to change a run; valid until another attempt begins.

    Attributes:
        run_id: The run.
        project_id: Its project.
        attempt: Number of the attempt, from 1.
    """

    run_id: str
    project_id: int
    attempt: int


class TrainingRuns:
    """Creates, reads and changes runs; shared by all processes on one database."""

    def __init__(self, engine: Engine, now: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._now = now

    def request(self, project_id: int, requested_by: RequestedBy) -> tuple[Run, bool]:
        """Create a run, or find the active one of the project. Returns the run, and whether it is new."""
        for _ in range(ASK_TRIES):
            under_way = self.under_way(project_id)
            if under_way is not None:
                return under_way, False
            run_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(self._now()))}-{secrets.token_hex(3)}"
            row = TrainingRun(
                id=run_id,
                project_id=project_id,
                active_project=project_id,
                requested_by=requested_by.value,
                requested_at=self._now(),
                stage=Stage.QUEUED.value,
            )
            try:
                with Session(self._engine) as session, session.begin():
                    session.add(row)
                    session.flush()
                    return _read(row), True
            except IntegrityError:
                continue  # another process has just created one
        raise RuntimeError("runs of the project start and end faster than one can be created")

    def of(self, run_id: str) -> Run | None:
        """A run by its id; None if there is none."""
        with Session(self._engine) as session:
            row = session.get(TrainingRun, run_id)
            return None if row is None else _read(row)

    def under_way(self, project_id: int) -> Run | None:
        """The active run of a project."""
        query = select(TrainingRun).where(TrainingRun.active_project == project_id)
        with Session(self._engine) as session:
            row = session.scalar(query)
            return None if row is None else _read(row)

    def all_under_way(self) -> list[Run]:
        """The active runs of all projects, oldest first."""
        query = select(TrainingRun).where(TrainingRun.active_project.is_not(None)).order_by(TrainingRun.id)
        with Session(self._engine) as session:
            return [_read(row) for row in session.scalars(query)]

    def latest(self, project_id: int, limit: int = 1) -> list[Run]:
        """The latest `limit` runs of a project, newest first."""
        query = (
            select(TrainingRun)
            .where(TrainingRun.project_id == project_id)
            .order_by(TrainingRun.requested_at.desc(), TrainingRun.id.desc())
            .limit(limit)
        )
        with Session(self._engine) as session:
            return [_read(row) for row in session.scalars(query)]

    def projects(self) -> set[int]:
        """Ids of the projects with runs."""
        with Session(self._engine) as session:
            return set(session.scalars(select(TrainingRun.project_id).distinct()))

    def outcomes(self) -> dict[Outcome, int]:
        """Number of ended runs by outcome, over all projects."""
        query = (
            select(TrainingRun.outcome, func.count())
            .where(TrainingRun.outcome.is_not(None))
            .group_by(TrainingRun.outcome)
        )
        with Session(self._engine) as session:
            return {Outcome(outcome): count for outcome, count in session.execute(query) if outcome}

    def claim(self, run_id: str, worker: str) -> Claim | None:
        """Give a waiting run to a worker. Returns None if another worker has it, or it has ended."""
        started_at = func.coalesce(TrainingRun.started_at, self._now())
        statement = (
            update(TrainingRun)
            .where(TrainingRun.id == run_id, TrainingRun.worker.is_(None))
            .where(TrainingRun.active_project.is_not(None))
            .values(
                worker=worker, attempt=TrainingRun.attempt + 1, seen_at=self._now(), started_at=started_at
            )
        )
        with Session(self._engine) as session, session.begin():
            if not session.execute(statement).rowcount:  # type: ignore[attr-defined]
                return None
            row = session.get_one(TrainingRun, run_id, populate_existing=True)
            return Claim(run_id, row.project_id, row.attempt)

    def beat(self, claim: Claim) -> bool:
        """Write the heartbeat. Returns False if the run no longer belongs to this claim."""
        return self._change(claim, {})

    def progress(
        self,
        claim: Claim,
        stage: Stage,
        step: int = 0,
        steps: int = 0,
        eta_s: float | None = None,
        metrics: Mapping[str, Any] | None = None,
        curve: Sequence[Sequence[float | None]] | None = None,
    ) -> bool:
        """Store the progress of a run.

        Args:
            claim: The worker's right to the run.
            stage: What the run is doing.
            step: Number of finished steps of the stage.
            steps: Number of all steps; 0 if unknown.
            eta_s: Estimated seconds until the end; None if unknown.
            metrics: Figures to show, finite numbers; None leaves the stored ones.
            curve: As in the table `TrainingRun`; None leaves the stored one.

        Returns:
            False if the run no longer belongs to this claim.
        """
        values: dict[str, Any] = {"stage": stage.value, "step": step, "steps": steps, "eta_s": eta_s}
        if metrics is not None:
            values["metrics"] = dict(metrics)
        if curve is not None:
            values["curve"] = [list(point) for point in curve]
        return self._change(claim, values)

    def leave_out(self, claim: Claim, problems: Sequence[str]) -> bool:
        """Store what was skipped in the training data, one sentence each. Returns as `beat` does."""
        return self._change(claim, {"left_out": list(problems)})

    def give_back(self, claim: Claim) -> bool:
        """Let the run wait for a worker again. Returns as `beat` does."""
        return self._change(claim, {"worker": None, "stage": Stage.QUEUED.value, "eta_s": None})

    def end(self, claim: Claim, outcome: Outcome, message: str, version: str | None = None) -> bool:
        """End the run.

        Args:
            claim: The worker's right to the run.
            outcome: How it ended.
            message: Why, in one line.
            version: The version that it published, if any.

        Returns:
            False if the run no longer belongs to this claim.
        """
        return self._change(claim, self._ended(outcome, message) | {"version": version})

    def give_up_silent(self, silent_s: float) -> list[Run]:
        """Take runs from workers whose last heartbeat is too old.

        Such a run waits again; after the second lost worker it has failed.

        Args:
            silent_s: Age in seconds from which a heartbeat is too old.

        Returns:
            The runs as they were before.
        """
        is_silent = TrainingRun.seen_at < self._now() - silent_s
        query = select(TrainingRun).where(TrainingRun.worker.is_not(None), is_silent)
        with Session(self._engine) as session:
            silent = [(_read(row), row.losses) for row in session.scalars(query)]
        given_up = []
        for run, losses in silent:
            values: dict[str, Any] = {"worker": None, "stage": Stage.QUEUED.value, "eta_s": None}
            if losses >= RERUNS:
                values = self._ended(
                    Outcome.FAILED, "two workers died during this run; the kernel log may say why"
                )
            claim = Claim(run.id, run.project_id, run.attempt)
            if self._change(claim, values | {"losses": losses + 1}, is_silent):
                given_up.append(run)
        return given_up

    def _ended(self, outcome: Outcome, message: str) -> dict[str, Any]:
        stage = Stage.FAILED if outcome is Outcome.FAILED else Stage.DONE
        return {
            "active_project": None,
            "worker": None,
            "ended_at": self._now(),
            "stage": stage.value,
            "eta_s": None,
            "outcome": outcome.value,
            "message": message[:MESSAGE_LENGTH],
        }

    def _change(self, claim: Claim, values: Mapping[str, Any], *also: ColumnElement[bool]) -> bool:
        statement: Update = (
            update(TrainingRun)
            .where(TrainingRun.id == claim.run_id, TrainingRun.attempt == claim.attempt)
            .where(TrainingRun.worker.is_not(None), *also)
            .values(seen_at=self._now(), **values)
        )
        with Session(self._engine) as session, session.begin():
            return bool(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def _read(row: TrainingRun) -> Run:
    return Run(
        id=row.id,
        project_id=row.project_id,
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        stage=Stage(row.stage),
        attempt=row.attempt or 0,
        worker=row.worker,
        started_at=row.started_at,
        ended_at=row.ended_at,
        step=row.step or 0,
        steps=row.steps or 0,
        eta_s=row.eta_s,
        metrics=row.metrics or {},
        left_out=tuple(row.left_out or ()),
        outcome=None if row.outcome is None else Outcome(row.outcome),
        message=row.message,
        version=row.version,
        seen_at=row.seen_at,
        curve=row.curve or (),
    )
