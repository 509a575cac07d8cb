"""All that the page of a project's trainings shows, as JSON: what waits, what runs, every version, how it does since."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from refcut_backend.clicks.log import ClickCost, ClickLog
from refcut_backend.training.new_annotations import NewAnnotations
from refcut_backend.training.runs import Run, TrainingRuns
from refcut_backend.training.scheduler import SILENT_S
from refcut_backend.training.status import run_status
from refcut_backend.training.trigger import (
    FAILURES_LOOKED_AT,
    ProjectStatus,
    TrainingRules,
    earliest_start,
)
from refcut_backend.versions.manifest import Manifest, Pointer
from refcut_backend.versions.store import ModelStore

MOST_VERSIONS = 20
"""Number of newest versions that are shown; the one that serves is always among them."""
RUNS_SHOWN = 10
FIGURES = ("noc85", "first_click_iou", "masks")


class TrainingReports:
    """Reads the trainings of a project. Each call takes a few queries, and one look at the model store.

    Args:
        runs: All trainings.
        new_annotations: Counts what no training has seen.
        rules: When trainings start.
        store: The versions.
        click_log: How many clicks accepted masks took.
        shared_version: Name of the model that serves projects without a version of their own.
        now: Seconds since 1970.
    """

    def __init__(
        self,
        runs: TrainingRuns,
        new_annotations: NewAnnotations,
        rules: TrainingRules,
        store: ModelStore,
        click_log: ClickLog,
        shared_version: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._runs = runs
        self._new_annotations = new_annotations
        self._rules = rules
        self._store = store
        self._click_log = click_log
        self._shared_version = shared_version
        self._now = now

    def progress(self, project_id: int) -> dict[str, Any]:
        """Return what waits and what runs: little enough to be read every second.

        Raises:
            SQLAlchemyError: If the database fails.
        """
        latest = self._runs.latest(project_id, FAILURES_LOOKED_AT)
        counts = self._new_annotations.of(project_id)
        earliest = earliest_start(self._rules, ProjectStatus.of(counts, latest))
        running = latest[0] if latest and not latest[0].has_ended else None
        return {
            "annotations": counts.annotations,
            "new": counts.new,
            "wanted": self._rules.after_annotations,
            "schedule": self._rules.cron,
            "earliest_at": earliest if math.isfinite(earliest) and earliest > self._now() else None,
            "running": None if running is None else self._running(running),
            "last_ended": next((run.id for run in latest if run.has_ended), None),
        }

    def history(self, project_id: int) -> dict[str, Any]:
        """Return the versions of a project, the trainings without one, and the clicks per accepted mask.

        Raises:
            SQLAlchemyError: If the database fails.
            ModelStoreError: If the model store does not answer.
        """
        pointer = self._store.pointer(project_id)
        names = self._store.versions(project_id)
        shown = [name for at, name in enumerate(names) if at < MOST_VERSIONS or name == pointer.version]
        before = pointer.rolled_back(frozenset(names))
        costs = self._click_log.clicks_per_mask(project_id)
        return {
            "serving": pointer.version or self._shared_version,
            "shared": self._shared_version,
            "rollback_to": None if before is None else before.version or self._shared_version,
            "versions": [self._version(self._store.manifest(name), pointer) for name in shown],
            "without_version": [
                run_status(run)
                for run in self._runs.latest(project_id, RUNS_SHOWN)
                if run.has_ended and run.version is None
            ],
            "clicks_per_mask": [vars(cost) for cost in self._shown_costs(costs, shown)],
        }

    def picture(self, project_id: int, version: str, name: str) -> bytes:
        """Return a picture of a version of this project.

        Raises:
            ModelStoreError: If there is none.
        """
        return self._store.picture(project_id, version, name)

    def _running(self, run: Run) -> dict[str, Any]:
        is_silent = run.worker is not None and (run.seen_at or 0.0) < self._now() - SILENT_S
        return run_status(run) | {"curve": list(run.curve), "is_silent": is_silent}

    def _shown_costs(self, costs: list[ClickCost], shown: list[str]) -> list[ClickCost]:
        known = {self._shared_version, *shown}
        return [cost for cost in costs if cost.model_version in known]

    def _version(self, manifest: Manifest, pointer: Pointer) -> dict[str, Any]:
        metadata = manifest.metadata
        decision = metadata.get("decision")
        reasons = decision.get("reasons", []) if isinstance(decision, dict) else []
        return {
            "version": manifest.version,
            "published_at": manifest.published_at,
            "parent": str(metadata.get("parent", "")),
            "serves": manifest.version == pointer.version,
            "served_before": manifest.version in pointer.earlier,
            "approved": manifest.is_approved,
            "reasons": "; ".join(map(str, reasons)),
            "annotations": metadata.get("annotations"),
            "images": metadata.get("images") if isinstance(metadata.get("images"), dict) else {},
            "left_out": len(metadata.get("left_out") or ()),
            "references": len(metadata.get("references") or ()),
            "compared": _compared(metadata.get("judgement")),
            "pictures": self._store.pictures(manifest.version),
        }


def _compared(figures: object) -> dict[str, Any] | None:
    """Figures of the holdout before and after a training, over all masks and by label; None without a comparison."""
    try:
        before, after = figures["serving"], figures["candidate"]  # type: ignore[index]
        labels = [
            {"label": str(label), "before": _figures(own), "after": _figures(after["by_label"][label])}
            for label, own in before.get("by_label", {}).items()
            if label in after.get("by_label", {})
        ]
        return {"before": _figures(before), "after": _figures(after), "labels": labels}
    except (AttributeError, KeyError, TypeError):
        return None


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metrics.get(name) for name in FIGURES}
