"""What the backend does with a candidate: stores what is needed to repeat it, and converts it before it serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
import torch

from model.checkpoints.official import convert
from model.checkpoints.version_folder import NETWORK_FILE, version_name
from model.checkpoints.weights import load_network, save_network
from model.data.snapshot import Snapshot
from model.finetuning.config import FineTuneSettings
from model.finetuning.time_budget import PLAN_FILE
from model.runtime.openvino import OpenVinoStages
from model.runtime.select import is_prepared, prepare
from refcut_backend.inference import load_model
from refcut_backend.inference.load_model import ModelLoader
from refcut_backend.settings import Settings
from refcut_backend.training.refcut_learner import ModelLearner
from refcut_backend.versions.serving import open_model_store
from refcut_backend.versions.store import ModelStore
from tests.support.recordings import CHECKPOINT
from tests.support.synthetic import TINY_SIMPLECLICK, random_network
from tests.support.synthetic_snapshot import QUICK, fish_snapshot, with_another_encoder
from tests.support.trained_folders import trained_folder, version_metadata

PLAN = {"wanted": 30, "steps": 25, "reviews": [[20, 25, 3.5]]}


def candidate(folder: Path, seed: int = 1) -> Path:
    """As fine-tuning leaves it."""
    trained_folder(folder, seed)
    (folder / PLAN_FILE).write_text(json.dumps(PLAN))
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state_dir=tmp_path / "state",
        model_dir=trained_folder(tmp_path / "tiny"),
        runtime="auto",
        device="cpu",
    )


@pytest.fixture
def store(settings: Settings) -> ModelStore:
    return open_model_store(settings)


def forms(settings: Settings) -> list[Path]:
    """What OpenVINO would only have to load."""
    folder = settings.runtime_cache_dir
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


@pytest.mark.slow
def test_a_version_is_converted_before_it_serves(tmp_path, settings, store, monkeypatch):
    ready: list[bool] = []
    promote = ModelStore.promote

    def noted(self: ModelStore, project_id: int, version: str) -> None:
        ready.append(is_prepared(self.local_folder(version), settings.runtime_cache_dir))
        promote(self, project_id, version)

    monkeypatch.setattr(ModelStore, "promote", noted)
    learner = ModelLearner(settings)
    version = learner.publish(7, candidate(tmp_path / "run"), version_metadata())
    assert forms(settings) == []
    learner.promote(7, version)
    assert ready == [True]
    assert store.current(7) == version


def test_a_version_that_cannot_be_converted_is_promoted_all_the_same(tmp_path, settings, store, monkeypatch):
    monkeypatch.setattr("model.runtime.select.TIME_LIMIT_S", 0.01)
    learner = ModelLearner(settings)
    version = learner.publish(7, candidate(tmp_path / "run"), version_metadata())
    learner.promote(7, version)
    assert forms(settings) == []
    assert store.current(7) == version


@pytest.mark.slow
def test_a_converted_checkpoint_is_served_and_learns_from_a_project(tmp_path, settings):
    weights = tmp_path / "micro.safetensors"
    convert(CHECKPOINT, weights)
    settings = settings.model_copy(update={"model_dir": weights})
    learner = ModelLearner(settings, QUICK.model_copy(update={"size_px": 64, "steps": 2}))
    snapshot, serving = fish_snapshot(tmp_path / "snapshot"), learner.serving(7)
    assert serving.folder == weights
    run = learner.fine_tune(snapshot, serving.folder, tmp_path / "run", lambda progress: None)
    version = learner.publish(7, run, {"parent": serving.version})
    store = open_model_store(settings)
    store.promote(7, version)
    assert version.startswith("micro-")
    loader = ModelLoader(torch.device("cpu"), "torch", settings.runtime_cache_dir)
    loader.load_shared(settings.model_dir, serving.version)
    served = loader.load(store.local_folder(version), version)
    assert served.network.config == load_network(weights).config
    # The next training begins from the version and is averaged with the checkpoint.
    child = learner.fine_tune(snapshot, learner.serving(7).folder, tmp_path / "child", lambda progress: None)
    second = learner.publish(7, child, {"parent": version})
    assert store.manifest(second).metadata["origin"] == serving.version
    assert store.manifest(second).base_sha256 == store.manifest(version).base_sha256


def test_the_folder_of_a_training_with_one_network_file_serves(tmp_path):
    network = random_network(TINY_SIMPLECLICK)
    save_network(network.state_dict(), network.config, tmp_path / NETWORK_FILE)
    loader = ModelLoader(torch.device("cpu"), "torch", tmp_path / "openvino")
    served = loader.load_shared(tmp_path, version_name(tmp_path))
    assert served.network.config == TINY_SIMPLECLICK


def test_a_training_is_averaged_with_the_shared_model_unless_its_parent_has_another_encoder(
    tmp_path, settings, monkeypatch
):
    asked: list[Path | None] = []

    def noted(*_arguments: object, anchor_dir: Path | None) -> Path:
        asked.append(anchor_dir)
        return tmp_path

    monkeypatch.setattr("refcut_backend.training.refcut_learner.fine_tune", noted)
    learner, nothing = ModelLearner(settings), cast(Snapshot, None)
    child = trained_folder(tmp_path / "child", seed=3)
    other = with_another_encoder(child, tmp_path / "other")
    for parent in (settings.model_dir, child, other):
        learner.fine_tune(nothing, parent, tmp_path / "run", lambda progress: None)
    assert asked == [settings.model_dir, settings.model_dir, None]


def test_the_manifest_names_the_parent_where_that_was_averaged_with(tmp_path, settings, store):
    other = with_another_encoder(candidate(tmp_path / "run"), tmp_path / "other")
    (other / PLAN_FILE).write_text(json.dumps(PLAN))
    version = ModelLearner(settings).publish(7, other, version_metadata())
    assert store.manifest(version).metadata["origin"] == version_metadata()["parent"]


def test_the_manifest_has_what_a_repetition_needs(tmp_path, settings, store):
    learner = ModelLearner(settings, FineTuneSettings(steps=30, seed=5))
    version = learner.publish(7, candidate(tmp_path / "run"), version_metadata(snapshot="0" * 64))
    found = store.manifest(version).metadata
    assert found["plan"] == PLAN
    assert found["origin"] == version_name(settings.model_dir)
    assert FineTuneSettings.model_validate(found["settings"]) == FineTuneSettings(steps=30, seed=5)
    assert found["snapshot"] == "0" * 64


@pytest.mark.slow
def test_a_rollback_converts_nothing_where_the_version_has_served_before(
    tmp_path, settings, store, monkeypatch
):
    learner = ModelLearner(settings)
    versions = [
        learner.publish(7, candidate(tmp_path / str(seed), seed), version_metadata()) for seed in (1, 2)
    ]
    with monkeypatch.context() as patched:
        patched.setattr(load_model, "prepare_in_subprocess", prepare)  # without another process's imports
        for version in versions:
            learner.promote(7, version)
    monkeypatch.setattr("model.runtime.openvino.convert", None)
    monkeypatch.setattr("model.runtime.select.subprocess.run", None)
    assert store.rollback(7) == versions[0]
    loader = ModelLoader(torch.device("cpu"), "openvino", settings.runtime_cache_dir)
    served = loader.load(store.local_folder(versions[0]), versions[0])
    assert isinstance(served.network, OpenVinoStages)
