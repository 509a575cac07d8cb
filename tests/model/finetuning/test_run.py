"""From a snapshot to a child of a version."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoints.version_folder import NETWORK_FILE
from model.checkpoints.weights import BASE_FILE, VERSION_FILE, load_network, save_network
from model.data.annotated_objects import AnnotatedObject
from model.data.snapshot import Snapshot
from model.errors import DataError, TrainingError, WeightsError
from model.finetuning.config import Progress, StopTraining
from model.finetuning.early_stopping import Check
from model.finetuning.run import FineTuning, fine_tune
from model.training import trainer
from model.training.distributed import Processes
from model.training.trainer import Trainer
from model.training.training_state import load_state
from tests.support.recorded import REPOSITORY
from tests.support.synthetic import TINY_READING, TINY_SIMPLECLICK, random_network
from tests.support.synthetic_snapshot import (
    QUICK,
    fish_snapshot,
    parent_version,
    with_another_encoder,
    with_another_shape,
)
from tests.support.training_runs import logged


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return parent_version(tmp_path / "parent")


class KilledError(Exception):
    """What ends a run in the middle here."""


def test_a_child_has_its_parents_base_and_other_weights(tmp_path, parent):
    reports: list[Progress] = []
    run = fine_tune(fish_snapshot(tmp_path / "snapshot"), parent, tmp_path / "run", QUICK, reports.append)
    assert (run / BASE_FILE).read_bytes() == (parent / BASE_FILE).read_bytes()
    before, after = load_network(parent).state_dict(), load_network(run).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("click_blocks.") for name in changed)
    assert any(name.startswith("head.") for name in changed)
    assert not any(name.startswith("backbone.") for name in changed)
    assert [p.step for p in reports if p.stage == "training"] == [1, 2, 3, 4]
    assert {"loss", "iou"} <= set(reports[-1].metrics)
    assert (reports[0].stage, reports[-1].stage) == ("preparing", "done")
    assert (run / "curves.png").stat().st_size > 0


@pytest.mark.parametrize("stored_as", ["file.safetensors", NETWORK_FILE])
def test_a_whole_network_learns_with_its_encoder_frozen(tmp_path, stored_as):
    network = random_network(TINY_SIMPLECLICK)
    save_network(network.state_dict(), network.config, tmp_path / stored_as)
    parent = tmp_path if stored_as == NETWORK_FILE else tmp_path / stored_as
    snapshot = fish_snapshot(tmp_path / "snapshot")
    settings = QUICK.model_copy(update={"size_px": 64})
    run = fine_tune(snapshot, parent, tmp_path / "run", settings)
    before, after = network.state_dict(), load_network(run).state_dict()
    for prefix in ("rpg.", "patch_embed_coords.", "neck.", "head."):
        assert any(not torch.equal(before[n].half(), after[n].half()) for n in before if n.startswith(prefix))
    frozen = [name for name in before if name.startswith("backbone.")]
    assert all(torch.equal(before[name].half().float(), after[name]) for name in frozen)
    learned = load_state(run, torch.device("cpu")).average
    assert learned
    assert not any(name.startswith("backbone.") for name in learned)
    # Its child is averaged with the whole network, which has the same encoder.
    child = fine_tune(snapshot, run, tmp_path / "child", settings, anchor_dir=parent)
    assert (child / BASE_FILE).read_bytes() == (run / BASE_FILE).read_bytes()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_losses(tmp_path, parent):
    snapshot = fish_snapshot(tmp_path / "snapshot")
    settings = QUICK.model_copy(update={"checkpoint_minutes": 0.0})
    fine_tune(snapshot, parent, tmp_path / "whole", settings)

    def die(progress: Progress) -> None:
        if progress.step == 2:
            raise KilledError

    with pytest.raises(KilledError):
        fine_tune(snapshot, parent, tmp_path / "killed", settings, die)
    resumed: list[Progress] = []
    fine_tune(snapshot, parent, tmp_path / "killed", settings, resumed.append)
    assert [p.step for p in resumed if p.stage == "training"] == [3, 4]
    losses = [[step["loss"] for step in logged(tmp_path / name)] for name in ("whole", "killed")]
    assert losses[1] == pytest.approx(losses[0])


def test_a_stopped_run_saves_and_resumes_later(tmp_path, parent):
    snapshot = fish_snapshot(tmp_path / "snapshot")

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise StopTraining

    with pytest.raises(StopTraining):
        fine_tune(snapshot, parent, tmp_path / "run", QUICK, stop)
    resumed: list[Progress] = []
    fine_tune(snapshot, parent, tmp_path / "run", QUICK, resumed.append)
    assert [p.step for p in resumed if p.stage == "training"] == [4]


@pytest.mark.slow
@pytest.mark.parametrize("cut_short", [False, True])
def test_a_run_leaves_no_handler_of_ended_children_behind(tmp_path, parent, cut_short):
    command = [sys.executable, "-m", "tests.support.own_child_handler", str(parent), str(tmp_path)]
    subprocess.run([*command, "2" if cut_short else "0"], cwd=REPOSITORY, check=True)


def test_a_finished_run_is_not_trained_again(tmp_path, parent):
    snapshot = fish_snapshot(tmp_path / "snapshot")
    fine_tune(snapshot, parent, tmp_path / "run", QUICK)
    reports: list[Progress] = []
    fine_tune(snapshot, parent, tmp_path / "run", QUICK, reports.append)
    assert not [p for p in reports if p.stage == "training"]


@pytest.mark.slow
def test_no_image_of_the_holdout_is_ever_opened(tmp_path, parent, monkeypatch):
    snapshot = fish_snapshot(tmp_path / "snapshot")
    opened: set[str] = set()
    read = AnnotatedObject.image

    def noted(annotated_object: AnnotatedObject) -> Any:
        opened.add(annotated_object.image_path.name)
        return read(annotated_object)

    monkeypatch.setattr(AnnotatedObject, "image", noted)
    settings = QUICK.model_copy(
        update={"steps": 30, "min_checked_images": 1, "checked_share": 0.4, "checks": 2}
    )
    fine_tune(snapshot, parent, tmp_path / "run", settings)
    assert opened == {annotated_object.file_name for annotated_object in snapshot.train}
    assert not opened & {annotated_object.file_name for annotated_object in snapshot.holdout}


def test_it_stops_early_when_checks_find_nothing_better_and_keeps_the_best(tmp_path, parent, monkeypatch):
    scores = iter([0.5, 0.6, 0.4, 0.3, 0.2])
    states: list[dict[str, torch.Tensor]] = []

    def checked(network: Any, _masks: object) -> Check:
        states.append({name: value.clone() for name, value in network.state_dict().items()})
        return Check(next(scores))

    monkeypatch.setattr("model.finetuning.early_stopping.check_masks", checked)
    changes = {"steps": 20, "checks": 10, "min_checked_images": 1, "checked_share": 0.4}
    run = fine_tune(
        fish_snapshot(tmp_path / "snapshot", train=8),
        parent,
        tmp_path / "run",
        QUICK.model_copy(update=changes),
    )
    assert len(logged(run)) == 6
    after = load_network(run).state_dict()
    for name, value in after.items():
        torch.testing.assert_close(value, states[1][name], atol=2e-3, rtol=2e-3)


def test_time_limits_the_steps(tmp_path, parent):
    settings = QUICK.model_copy(update={"steps": 10_000, "time_limit_s": 1.5})
    run = fine_tune(fish_snapshot(tmp_path / "snapshot"), parent, tmp_path / "run", settings)
    assert 1 <= len(logged(run)) < 10_000
    load_network(run)


class Machine:
    """A clock on which the n-th step takes as long as `step_s` says, however long it really takes."""

    def __init__(self, step_s: Callable[[int], float], dies_after: int = -1, stops_after: int = -1) -> None:
        self._step_s, self._dies_after, self._stops_after = step_s, dies_after, stops_after
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def on_progress(self, progress: Progress) -> None:
        if progress.stage == "training":
            self.now_s += self._step_s(progress.step)
            if progress.step == self._dies_after:
                raise KilledError
            if progress.step == self._stops_after:
                raise StopTraining

    def fine_tune(self, snapshot: Snapshot, parent: Path, run: Path) -> list[dict[str, float]]:
        """The steps that are logged in the end."""
        settings = QUICK.model_copy(
            update={"steps": 60, "groups": 1, "time_limit_s": 100.0, "warmup_steps": 2}
        )
        run.mkdir(parents=True, exist_ok=True)
        tuning = FineTuning(snapshot, parent, run, settings, self.on_progress, Processes(), clock=self.clock)
        tuning.run()
        return logged(run)


@pytest.mark.slow
def test_a_machine_that_is_busy_at_the_start_does_not_shorten_the_run(tmp_path, parent):
    machine = Machine(lambda step: 5.0 if step <= 7 else 0.5)
    steps = machine.fine_tune(fish_snapshot(tmp_path / "snapshot"), parent, tmp_path / "run")
    assert len(steps) == 60
    reviews = json.loads((tmp_path / "run" / "plan.json").read_text())["reviews"]
    assert reviews[0][1] < 25, "when it was busy it looked as if there were no time"
    assert steps[-1]["rate"] < 0.02


def test_a_slow_machine_ends_in_time_and_with_a_small_learning_rate(tmp_path, parent):
    machine = Machine(lambda step: 4.0)
    steps = machine.fine_tune(fish_snapshot(tmp_path / "snapshot"), parent, tmp_path / "run")
    assert 20 <= len(steps) <= 25
    assert machine.now_s <= 100.0
    assert steps[-1]["rate"] < 0.05


@pytest.mark.slow
def test_a_resumed_run_keeps_what_was_decided_of_its_length(tmp_path, parent):
    snapshot, run = fish_snapshot(tmp_path / "snapshot"), tmp_path / "run"
    with pytest.raises(StopTraining):
        Machine(lambda step: 5.0, stops_after=8).fine_tune(snapshot, parent, run)
    with pytest.raises(KilledError):
        Machine(lambda step: 0.5, dies_after=25).fine_tune(snapshot, parent, run)
    killed = logged(run)
    slow = Machine(lambda step: 4.0).fine_tune(snapshot, parent, run)
    assert [step["rate"] for step in slow[:25]] == [step["rate"] for step in killed]
    assert [step["loss"] for step in slow[:25]] == pytest.approx([step["loss"] for step in killed])
    assert len(slow) < 60, "after that it is as long as its time allows"


@pytest.mark.slow
def test_a_resumed_run_counts_the_time_before(tmp_path, parent):
    snapshot = fish_snapshot(tmp_path / "snapshot")
    with pytest.raises(StopTraining):
        Machine(lambda step: 4.0, stops_after=12).fine_tune(snapshot, parent, tmp_path / "run")
    assert len(Machine(lambda step: 4.0).fine_tune(snapshot, parent, tmp_path / "run")) <= 27


@pytest.mark.slow
def test_weights_are_checked_once_after_a_step_however_often_the_run_comes_by(tmp_path, parent, monkeypatch):
    checked: list[int] = []
    monkeypatch.setattr(
        "model.finetuning.early_stopping.check_masks",
        lambda *_: checked.append(1) or Check(0.5 + len(checked)),
    )
    settings = QUICK.model_copy(
        update={"steps": 8, "checks": 2, "min_checked_images": 1, "checked_share": 0.4}
    )
    snapshot = fish_snapshot(tmp_path / "snapshot", train=8)

    def die(progress: Progress) -> None:
        if progress.step == 6:
            raise KilledError

    with pytest.raises(KilledError):
        fine_tune(snapshot, parent, tmp_path / "run", settings, die)
    assert len(checked) == 2
    fine_tune(snapshot, parent, tmp_path / "run", settings)
    assert len(checked) == 3


def test_the_expected_iou_of_a_child_is_corrected_by_its_checks(tmp_path, monkeypatch):
    parent = parent_version(tmp_path / "parent", TINY_READING)
    too_sure = Check(0.5, expected=[0.9] * 60, measured=[0.5] * 60)
    monkeypatch.setattr("model.finetuning.early_stopping.check_masks", lambda *_: too_sure)
    changes = {"steps": 4, "checks": 1, "min_checked_images": 1, "checked_share": 0.4}
    run = fine_tune(
        fish_snapshot(tmp_path / "snapshot", train=8),
        parent,
        tmp_path / "run",
        QUICK.model_copy(update=changes),
    )
    scale, shift = load_network(run).candidates.calibration.tolist()
    assert scale * np.log(9) + shift == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("rate", [0.0, 1e-2])
def test_the_reader_of_a_child_learns_if_it_has_a_rate(tmp_path, rate):
    parent = parent_version(tmp_path / "parent", TINY_READING)
    settings = QUICK.model_copy(update={"rate_reader": rate})
    run = fine_tune(fish_snapshot(tmp_path / "snapshot"), parent, tmp_path / "run", settings)
    before, after = load_network(parent).state_dict(), load_network(run).state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert ("reader" in changed) == (rate > 0)
    assert "head" in changed


@pytest.mark.parametrize("enough", [True, False])
def test_when_the_gpu_runs_out_of_memory_a_smaller_batch_is_tried_once(tmp_path, parent, monkeypatch, enough):
    computed: list[int] = []
    original = Trainer._add_gradient

    def short_of_memory(trainer: Trainer, batch: Any, *rest: Any) -> Any:
        computed.append(len(batch.images))
        if len(batch.images) > 2 or not enough:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(trainer, batch, *rest)

    monkeypatch.setattr(Trainer, "_add_gradient", short_of_memory)
    snapshot = fish_snapshot(tmp_path / "snapshot")
    if enough:
        load_network(fine_tune(snapshot, parent, tmp_path / "run", QUICK))
        assert (computed[0], set(computed[1:])) == (4, {2})
        return
    with pytest.raises(TrainingError, match="no memory for one group"):
        fine_tune(snapshot, parent, tmp_path / "run", QUICK)
    assert len(computed) == 2
    assert not (tmp_path / "run" / VERSION_FILE).exists()


def test_a_loss_that_is_not_a_number_ends_the_run_and_leaves_no_version(tmp_path, parent, monkeypatch):
    monkeypatch.setitem(trainer.LOSSES, "bce_and_dice", lambda logits, _targets: logits.mean() * torch.nan)
    with pytest.raises(TrainingError, match="loss is not a number"):
        fine_tune(fish_snapshot(tmp_path / "snapshot"), parent, tmp_path / "run", QUICK)
    assert not (tmp_path / "run" / VERSION_FILE).exists()
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


@pytest.mark.slow
def test_replay_draws_from_earlier_snapshots(tmp_path, parent, monkeypatch):
    earlier = fish_snapshot(tmp_path / "earlier")
    opened: set[Path] = set()
    read = AnnotatedObject.image
    monkeypatch.setattr(
        AnnotatedObject,
        "image",
        lambda annotated_object: (opened.add(annotated_object.image_path.parent), read(annotated_object))[1],
    )
    settings = QUICK.model_copy(
        update={"steps": 10, "replay_snapshots": (earlier.folder,), "replay_share": 0.5}
    )
    snapshot = fish_snapshot(tmp_path / "snapshot")
    fine_tune(snapshot, parent, tmp_path / "run", settings)
    assert opened == {earlier.image_dir, snapshot.image_dir}


@pytest.mark.slow
def test_the_anchors_share_stays_in_the_weights(tmp_path, parent):
    snapshot = fish_snapshot(tmp_path / "snapshot")
    distances = []
    for share in (0.0, 0.5):
        settings = QUICK.model_copy(update={"anchor_share": share})
        run = fine_tune(snapshot, parent, tmp_path / str(share), settings)
        before, after = load_network(parent).state_dict(), load_network(run).state_dict()
        distances.append(sum(float((before[name] - after[name]).abs().sum()) for name in before))
    assert distances[1] == pytest.approx(distances[0] / 2, rel=0.2)


@pytest.mark.slow
def test_a_child_of_a_child_is_averaged_with_the_weights_that_both_come_from(tmp_path, parent):
    snapshot = fish_snapshot(tmp_path / "snapshot")
    child = fine_tune(snapshot, parent, tmp_path / "child", QUICK)
    shared = load_network(parent).state_dict()

    def distance(run: Path) -> float:
        return sum(float((shared[n] - v).abs().sum()) for n, v in load_network(run).state_dict().items())

    tuned = fine_tune(snapshot, child, tmp_path / "tuned", QUICK.model_copy(update={"anchor_share": 0.0}))
    averaged = fine_tune(snapshot, child, tmp_path / "averaged", QUICK, anchor_dir=parent)
    assert distance(averaged) == pytest.approx(distance(tuned) / 2, rel=0.05)
    wandering = fine_tune(snapshot, child, tmp_path / "wandering", QUICK)
    assert distance(averaged) < distance(wandering)


@pytest.mark.parametrize("changed", [with_another_encoder, with_another_shape])
def test_weights_of_another_encoder_or_shape_are_not_averaged_with(tmp_path, parent, changed):
    snapshot, other = fish_snapshot(tmp_path / "snapshot"), changed(parent, tmp_path / "other")
    with pytest.raises(WeightsError, match="another base"):
        fine_tune(snapshot, parent, tmp_path / "run", QUICK, anchor_dir=other)


def test_nothing_to_learn_from_is_reported(tmp_path, parent):
    with pytest.raises(DataError, match="nothing to train on"):
        fine_tune(fish_snapshot(tmp_path / "snapshot", train=0, holdout=2), parent, tmp_path / "run", QUICK)


def test_a_parent_that_is_a_pickle_is_refused_and_not_run(tmp_path, parent):
    (parent / VERSION_FILE).write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsError):
        fine_tune(fish_snapshot(tmp_path / "snapshot"), parent, tmp_path / "run", QUICK)
