"""Trainings and versions of a project, as a few weeks leave them: for tests of the page that shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, insert

from refcut_backend.database.click_tables import ClickEvent
from refcut_backend.database.projects import Projects
from refcut_backend.database.tables import AnnotationState
from refcut_backend.label_studio.connection import Connection
from refcut_backend.training.runs import Outcome, RequestedBy, Stage, TrainingRuns
from refcut_backend.versions.store import ModelStore
from tests.support.fake_wiring import CREATED
from tests.support.trained_folders import trained_folder, version_metadata

PROJECT = 7


def connect(projects: Projects) -> None:
    """Let the project's Label Studio call /setup with its address."""
    projects.remember(PROJECT, Connection("http://127.0.0.1:8080", "token"), "", CREATED)


def figures(noc85: float, first_click_iou: float, **labels: tuple[float, float]) -> dict[str, Any]:
    """Metrics of one network, with (clicks to 85 %, IoU of the first click) by label."""
    own = {label: {"noc85": noc, "first_click_iou": iou, "masks": 6} for label, (noc, iou) in labels.items()}
    return {"noc85": noc85, "first_click_iou": first_click_iou, "masks": 6 * len(own), "by_label": own}


def two_versions(store: ModelStore, folder: Path) -> list[str]:
    """Publish two versions; the first was promoted, the second was not."""
    serving = figures(4.1, 0.71, Door=(3.9, 0.74), Wheel=(4.3, 0.68))
    better = figures(3.0, 0.79, Door=(2.9, 0.81), Wheel=(3.1, 0.77))
    worse = figures(3.6, 0.76, Door=(2.8, 0.82), Wheel=(4.4, 0.70))
    kinds = [
        (True, ["first click 0.710 to 0.790, clicks to .85 4.10 to 3.00 on 12 masks"], serving, better),
        (False, ["Wheel is worse: first click 0.770 to 0.700, clicks 3.10 to 4.40"], better, worse),
    ]
    names = []
    for seed, (promote, reasons, before, after) in enumerate(kinds):
        metadata = version_metadata(
            annotations=48 + 21 * seed,
            images={"train": 40 + 15 * seed, "holdout": 8},
            decision={"promote": promote, "reasons": reasons},
            judgement={"serving": before, "candidate": after},
            run=f"run-{seed}",
        )
        names.append(store.publish(PROJECT, trained_folder(folder / f"run-{seed}", seed + 1), metadata))
    store.promote(PROJECT, names[0])
    return names


def new_annotations(engine: Engine, number: int) -> None:
    """Annotations with masks that no training has seen."""
    rows = [
        {
            "project_id": PROJECT,
            "annotation_id": 1000 + at,
            "task_id": at,
            "updated_at": "2026-11-29T00:00:00",
            "locked_at": 1.0,
            "mask_regions": 2,
        }
        for at in range(number)
    ]
    with engine.begin() as connection:
        connection.execute(insert(AnnotationState), rows)


def accepted_clicks(engine: Engine, version: str, label: str, masks: int, clicks: int) -> None:
    """Masks that were accepted after a number of clicks."""
    rows = [
        {
            "project_id": PROJECT,
            "task_id": at,
            "label": label,
            "region_id": f"{version}-{label}-{at}",
            "clicks": [["a", 1.0, 1.0, True]] * clicks,
            "box": None,
            "model_version": version,
            "reference_versions": [],
            "milliseconds": 200.0,
            "accepted_at": datetime.now(UTC),
        }
        for at in range(masks)
    ]
    with engine.begin() as connection:
        connection.execute(insert(ClickEvent), rows)


def a_failed_run(runs: TrainingRuns) -> str:
    """A training that failed."""
    run, _ = runs.request(PROJECT, RequestedBy.ANNOTATIONS)
    claim = runs.claim(run.id, "worker")
    assert claim is not None
    runs.end(claim, Outcome.FAILED, "the disk is full; free some space in REFCUT_STATE_DIR")
    return run.id


def a_running_run(runs: TrainingRuns) -> str:
    """A training in the middle of its steps, with a curve."""
    run, _ = runs.request(PROJECT, RequestedBy.ANNOTATIONS)
    claim = runs.claim(run.id, "worker")
    assert claim is not None
    curve = [
        [step, 0.5 - step / 900, 0.55 + 0.3 * step / 250, 0.6 + 0.2 * step / 250 if step % 50 == 0 else None]
        for step in range(0, 210, 10)
    ]
    metrics = {"loss": 0.3, "iou": 0.8}
    runs.progress(claim, Stage.TRAINING, 200, 400, 840.0, metrics, curve)
    return run.id
