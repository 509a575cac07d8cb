"""A run whose settings change while it is interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.data.snapshot import Snapshot
from model.finetuning.config import FineTuneSettings, Progress, StopTraining
from model.finetuning.run import fine_tune
from model.finetuning.run_settings import SETTINGS_FILE
from tests.support.synthetic import TINY_READING
from tests.support.synthetic_snapshot import QUICK, fish_snapshot, parent_version
from tests.support.training_runs import logged


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return parent_version(tmp_path / "parent", TINY_READING)


def interrupted(snapshot: Snapshot, parent: Path, run_dir: Path) -> Path:
    """A run of four steps that ends after the third, with a checkpoint."""

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise StopTraining

    with pytest.raises(StopTraining):
        fine_tune(snapshot, parent, run_dir, QUICK, stop)
    return run_dir


def steps_taken(snapshot: Snapshot, parent: Path, run_dir: Path, settings: FineTuneSettings) -> list[int]:
    """Train, and return the numbers of the steps that were taken."""
    reports: list[Progress] = []
    fine_tune(snapshot, parent, run_dir, settings, reports.append)
    return [report.step for report in reports if report.stage == "training"]


@pytest.mark.parametrize("change", [{"rate_reader": 0.0}, {"size_px": 28}, {"max_click_rounds": 1}])
def test_a_run_whose_settings_an_update_changed_starts_again(
    tmp_path: Path, parent: Path, change: dict[str, Any]
) -> None:
    snapshot = fish_snapshot(tmp_path / "snapshot")
    changed = QUICK.model_copy(update=change)
    run = interrupted(snapshot, parent, tmp_path / "run")
    assert steps_taken(snapshot, parent, run, changed) == [1, 2, 3, 4]
    fine_tune(snapshot, parent, tmp_path / "new", changed)
    losses = [[step["loss"] for step in logged(tmp_path / name)] for name in ("new", "run")]
    assert losses[1] == pytest.approx(losses[0])


@pytest.mark.parametrize("left", [None, "{", "[]"])
def test_a_run_of_a_version_that_wrote_no_settings_starts_again(
    tmp_path: Path, parent: Path, left: str | None
) -> None:
    snapshot = fish_snapshot(tmp_path / "snapshot")
    run = interrupted(snapshot, parent, tmp_path / "run")
    (run / SETTINGS_FILE).unlink()
    if left is not None:
        (run / SETTINGS_FILE).write_text(left)
    assert steps_taken(snapshot, parent, run, QUICK) == [1, 2, 3, 4]


@pytest.mark.parametrize("change", [{}, {"time_limit_s": 5000.0}, {"checkpoint_minutes": 5.0}])
def test_a_run_goes_on_from_its_checkpoint_with_the_same_settings_or_more_time(
    tmp_path: Path, parent: Path, change: dict[str, Any]
) -> None:
    snapshot = fish_snapshot(tmp_path / "snapshot")
    run = interrupted(snapshot, parent, tmp_path / "run")
    assert steps_taken(snapshot, parent, run, QUICK.model_copy(update=change)) == [4]
