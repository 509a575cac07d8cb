"""The state of trainings in the forms of `/status`, Prometheus and Label Studio's /job_status.

The JSON keys are documented in docs/operations.md and read by users' tools, so they stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine

from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.references.left_out import (
    annotations_left_out,
    projects_with_left_out,
    references_left_out,
)
from refcut_backend.training.new_annotations import AnnotationCounts, NewAnnotations
from refcut_backend.training.runs import Outcome, Run, Stage, TrainingRuns

IN_LABEL_STUDIO = {Stage.QUEUED: "queued", Stage.DONE: "finished", Stage.FAILED: "failed"}


class TrainingStatus:
    """Reads the database at every call. Every method raises SQLAlchemyError if that fails."""

    def __init__(self, runs: TrainingRuns, new_annotations: NewAnnotations, engine: Engine) -> None:
        self._runs = runs
        self._new_annotations = new_annotations
        self._engine = engine

    def summary(self) -> dict[str, Any]:
        """Name of a project (`project_name`) to its counts of annotations, those left out, and its latest run."""
        counts = self._new_annotations.by_project()
        with_left_out = projects_with_left_out(self._engine)
        projects = set(counts) | self._runs.projects() | with_left_out
        return {
            project_name(project_id): project_status(
                counts.get(project_id, AnnotationCounts()), next(iter(self._runs.latest(project_id)), None)
            )
            | ({"left_out": self._left_out(project_id)} if project_id in with_left_out else {})
            for project_id in sorted(projects)
        }

    def _left_out(self, project_id: int) -> list[str]:
        found = (
            *annotations_left_out(self._engine, project_id),
            *references_left_out(self._engine, project_id),
        )
        return [str(one) for one in found]

    def stages(self) -> Mapping[Stage, int]:
        """Number of active runs by stage."""
        counts = dict.fromkeys((Stage.QUEUED, Stage.SNAPSHOT, Stage.TRAINING, Stage.COMPARING), 0)
        for run in self._runs.all_under_way():
            counts[run.stage] += 1
        return counts

    def outcomes(self) -> Mapping[Outcome, int]:
        """Number of ended runs by outcome."""
        return dict.fromkeys(Outcome, 0) | self._runs.outcomes()

    def job(self, run_id: str) -> dict[str, Any] | None:
        """A run in the form that Label Studio expects for the jobs of its button; None if the run is unknown."""
        run = self._runs.of(run_id)
        if run is None:
            return None
        failed = run.outcome is Outcome.FAILED
        return {
            "job_status": IN_LABEL_STUDIO.get(run.stage, "started"),
            "error": run.message if failed else "",
            **run_status(run),
        }


def project_status(counts: AnnotationCounts, run: Run | None) -> dict[str, Any]:
    """Counts and latest run of one project, for JSON."""
    return {
        "annotations": counts.annotations,
        "new_annotations": counts.new,
        "run": None if run is None else run_status(run),
    }


def run_status(run: Run) -> dict[str, Any]:
    """One run, for JSON. Times are seconds since 1970."""
    return {
        "id": run.id,
        "asked_by": run.requested_by,
        "asked_at": run.requested_at,
        "begun_at": run.started_at,
        "ended_at": run.ended_at,
        "attempt": run.attempt,
        "stage": run.stage.value,
        "step": run.step,
        "steps": run.steps,
        "eta_s": run.eta_s,
        "metrics": dict(run.metrics),
        "left_out": list(run.left_out),
        "outcome": None if run.outcome is None else run.outcome.value,
        "reason": run.message,
        "version": run.version,
    }
