"""One training, from annotations in Label Studio to its outcome."""

from __future__ import annotations

import errno
import json

import pytest

from model.errors import DataError
from refcut_backend.training.pipeline import WORK_DIR
from refcut_backend.training.runs import Outcome, Stage
from tests.support.fake_learner import PARENT


def test_a_better_model_is_promoted_and_its_manifest_says_what_it_was_made_of(world):
    world.annotate_many(20)
    run = world.train()
    assert (run.outcome, run.stage, run.message) == (Outcome.PROMOTED, Stage.DONE, world.learner.reasons[0])
    manifest = world.learner.manifest(run.version or "")
    assert (manifest["run"], manifest["project"], manifest["parent"]) == (run.id, 7, PARENT)
    assert manifest["snapshot"] == world.snapshot(run).digest
    assert manifest["decision"] == {"promote": True, "reasons": list(world.learner.reasons)}
    assert manifest["judgement"] == {"first_click_iou": 0.6}
    assert manifest["images"]["train"] + manifest["images"]["holdout"] == 20
    assert world.learner.serving(7).version == run.version


def test_a_new_model_that_is_worse_is_not_promoted_and_the_reason_is_kept(world):
    world.annotate_many(20)
    world.learner.promote_it, world.learner.reasons = False, ("worse on 'Door'",)
    run = world.train()
    assert (run.outcome, run.message) == (Outcome.NOT_PROMOTED, "worse on 'Door'")
    manifest = world.learner.manifest(run.version or "")
    assert manifest["decision"] == {"promote": False, "reasons": ["worse on 'Door'"]}
    assert manifest["judgement"] == {"first_click_iou": 0.6}
    assert world.learner.serving(7).version == PARENT


def test_with_too_few_images_held_out_nothing_is_promoted(world):
    world.annotate_many(8)
    run = world.train()
    assert run.outcome is Outcome.NOT_PROMOTED
    assert "4 images are held out and 5 are needed" in (run.message or "")
    assert world.learner.serving(7).version == PARENT


def test_without_anything_to_learn_from_no_model_is_made(world):
    run = world.train()
    assert (run.outcome, run.version) == (Outcome.NOT_PROMOTED, None)
    assert "too little training data" in (run.message or "")
    assert world.learner.seen == []


def test_a_training_begins_from_the_version_that_serves(world):
    world.annotate_many(20)
    first = world.train()
    world.registry.follow(world.annotate(1))
    second = world.train()
    assert world.learner.manifest(second.version or "")["parent"] == first.version


def test_what_a_training_has_seen_is_no_longer_new_and_a_changed_annotation_is(world):
    world.annotate_many(12)
    assert (world.counts().annotations, world.counts().new) == (12, 12)
    world.train()
    assert (world.counts().annotations, world.counts().new) == (12, 0)
    world.registry.follow(world.annotate(3))
    assert world.counts().new == 1


def test_an_annotation_that_changes_during_a_training_is_new_afterwards(world):
    world.annotate_many(12)
    world.learner.on_step = lambda step: world.registry.follow(world.annotate(3)) if step == 1 else None
    world.train()
    assert world.counts().new == 1


def test_a_training_that_fails_leaves_everything_new_and_the_reason_readable(world):
    world.annotate_many(12)

    def fail(step: int) -> None:
        raise DataError("the loss is not a number", hint="look at the annotations")

    world.learner.on_step = fail
    run = world.train()
    assert (run.outcome, run.stage) == (Outcome.FAILED, Stage.FAILED)
    assert run.message == "the loss is not a number: look at the annotations"
    assert world.counts().new == 12
    assert world.learner.serving(7).version == PARENT


def test_an_unexpected_failure_says_no_more_than_its_kind(world):
    world.annotate_many(12)

    def fail(step: int) -> None:
        raise KeyError("canary")

    world.learner.on_step = fail
    run = world.train()
    assert "KeyError" in (run.message or "")
    assert "canary" not in (run.message or "")


@pytest.mark.parametrize("when", ["training", "publishing"])
def test_a_full_disk_ends_the_training_and_the_serving_model_stays(world, when):
    world.annotate_many(20)

    def full(*_step: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if when == "training":
        world.learner.on_step = full
    else:
        world.learner.on_publish = full
    run = world.train()
    assert run.outcome is Outcome.FAILED
    assert "disk is full" in (run.message or "")
    assert world.learner.serving(7).version == PARENT
    world.learner.on_step = world.learner.on_publish = lambda *_step: None
    assert world.train().outcome is Outcome.PROMOTED


def test_a_full_disk_while_the_snapshot_is_written_leaves_none(world, monkeypatch):
    world.annotate_many(12)

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("refcut_backend.training.stored_images.os.fsync", full)
        run = world.train()
    assert "disk is full" in (run.message or "")
    assert [*world.settings.training_dir.rglob("*.json"), *world.settings.training_dir.rglob("*.png")] == []
    assert world.train().outcome is Outcome.PROMOTED


def test_a_run_taken_up_again_uses_the_snapshot_that_it_began_with_and_its_last_checkpoint(world):
    world.annotate_many(12)

    def interrupt(step: int) -> None:
        if step == 2:
            world.stop_event.set()

    world.learner.on_step = interrupt
    run = world.train()
    assert (run.stage, run.worker, run.has_ended) == (Stage.QUEUED, None, False)
    world.stop_event.clear()
    world.registry.follow(world.annotate(40))
    world.worker("another").work_on(run.id)
    ended = world.runs.of(run.id)
    assert ended is not None
    assert (ended.outcome, ended.attempt) == (Outcome.PROMOTED, 2)
    first, second = world.learner.seen
    assert first.digest == second.digest
    assert [step for _, step in world.learner.computed()] == [1, 2, 3, 4]
    assert world.counts().new == 1


def test_checkpoints_of_ended_runs_are_dropped_and_their_snapshots_stay(world):
    world.annotate_many(12)
    first, second = world.train(), world.train()
    folder = world.settings.training_dir / "7"
    assert not (folder / first.id / WORK_DIR).exists()
    assert (folder / second.id / WORK_DIR).exists()
    assert world.snapshot(first).digest == world.snapshot(second).digest


def test_progress_is_readable_while_it_runs(world):
    world.annotate_many(12)
    seen, compared = [], []

    def look(step: int) -> None:
        run = world.runs.under_way(7)
        assert run is not None
        seen.append((run.stage, run.worker, run.attempt))

    world.learner.on_step = look
    world.learner.on_publish = lambda: compared.append(world.runs.all_under_way()[0].stage)
    run = world.train()
    assert compared == [Stage.COMPARING]
    assert seen == [(Stage.TRAINING, "trainer", 1)] * 4
    assert run.metrics == {"loss": 0.25}


def test_the_snapshot_names_the_annotations_that_it_was_made_of(world):
    world.annotate_many(4)
    run = world.train()
    metadata = json.loads((world.snapshot(run).folder / "snapshot.json").read_text())["made_of"]
    assert metadata["project"] == 7
    assert [(annotation, task) for annotation, task, _ in metadata["annotations"]] == [
        (n, n) for n in range(1, 5)
    ]


def test_another_projects_annotations_and_trainings_are_never_touched(world):
    world.annotate_many(12)
    other = world.registry.projects
    other.remember(8, world.api.connection, "<View/>")
    run = world.train()
    assert world.runs.latest(8) == []
    assert [folder.name for folder in world.settings.training_dir.iterdir()] == ["7"]
    assert {path.name for path in world.learner.store.glob("current-*")} == {"current-7"}
    assert run.project_id == 7
