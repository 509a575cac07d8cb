"""What ended trainings leave is bounded, and what a version can be repeated from stays."""

from __future__ import annotations

import itertools
from pathlib import Path

from model.data.snapshot import read_snapshot
from refcut_backend.training.collect import ProjectImages
from refcut_backend.training.runs import Outcome, TrainingRuns
from refcut_backend.training.snapshot import remove_old_runs
from tests.support.training_world import World, photograph


def run_folder(project: Path, day: int, *photographs: int) -> Path:
    """A run with a snapshot of these images."""
    images = ProjectImages(project / "images")
    folder = project / f"202601{day:02d}-120000-abcdef"
    (folder / "snapshot" / "images").mkdir(parents=True)
    for number in photographs:
        images.put_into(folder / "snapshot" / "images", images.keep(photograph(number)).file_name)
    return folder


def names(project: Path) -> set[str]:
    return {path.name for path in project.iterdir()}


def test_the_newest_runs_and_the_needed_ones_stay(tmp_path):
    runs = [run_folder(tmp_path, day, 1).name for day in range(1, 7)]
    (tmp_path / "not-a-run").mkdir()
    assert set(remove_old_runs(tmp_path, 2, {runs[1]})) == {runs[0], runs[2], runs[3]}
    assert names(tmp_path) == {runs[1], runs[4], runs[5], "images", "not-a-run"}


def test_images_go_with_the_last_snapshot_that_names_them(tmp_path):
    images = tmp_path / "images"
    run_folder(tmp_path, 1, 1, 2)
    kept = run_folder(tmp_path, 2, 2, 3)
    (images / ".half-of-a-killed-worker").write_bytes(b"half")
    assert len(list(images.iterdir())) == 4
    remove_old_runs(tmp_path, 1, frozenset())
    stay = {path.name for path in images.iterdir()}
    assert stay == {path.name for path in (kept / "snapshot" / "images").iterdir()}
    assert len(stay) == 2


def test_a_snapshot_that_stays_can_still_be_read_and_trained_on(world: World):
    world.settings = world.settings.model_copy(update={"train_keep_runs": 2})
    minutes = itertools.count(1)
    world.runs = TrainingRuns(world.registry.engine, lambda: 60.0 * next(minutes))
    world.annotate_many(20)
    runs = [world.train()]
    world.learner.promote_it = False
    for _ in range(3):
        world.registry.follow(world.annotate(1))
        runs.append(world.train())
    assert runs[0].outcome is Outcome.PROMOTED
    folder = world.settings.training_dir / str(world.project)
    assert {run.id for run in runs} & names(folder) == {runs[0].id, *(run.id for run in runs[2:])}
    for run in (runs[0], *runs[2:]):
        assert read_snapshot(world.snapshot(run).folder).digest == world.snapshot(run).digest


def test_a_training_is_done_even_if_old_ones_cannot_be_removed(world: World, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr("refcut_backend.training.pipeline.remove_old_runs", fail)
    world.annotate_many(20)
    assert world.train().outcome is Outcome.PROMOTED
