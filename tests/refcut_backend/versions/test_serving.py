"""What serves a project, as the web server says it without loading anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.checkpoints.version_folder import VERSION_FILE
from refcut_backend.versions.serving import ServingChoice, StoreVersions
from refcut_backend.versions.store import ModelStore
from tests.support.trained_folders import trained_folder, version_metadata
from tests.support.worker_farm import wait_for


class Clock:
    """Time that passes only when a test sets it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore.open(str(tmp_path / "models"), tmp_path / "cache")


@pytest.fixture
def choice(store: ModelStore, tmp_path: Path) -> ServingChoice:
    return ServingChoice(store, trained_folder(tmp_path / "shared"))


def published(store: ModelStore, tmp_path: Path, seed: int) -> str:
    return store.publish(1, trained_folder(tmp_path / f"run-{seed}", seed), version_metadata())


def damage(tmp_path: Path, version: str) -> None:
    path = tmp_path / "models" / "versions" / version / VERSION_FILE
    path.write_bytes(path.read_bytes()[:-1])


def test_a_damaged_version_falls_back_to_the_previous_good_one_and_is_counted(
    store, choice, tmp_path, caplog
):
    versions = [published(store, tmp_path, seed) for seed in (1, 2, 3)]
    for version in versions:
        store.promote(1, version)
    for version in versions[1:]:
        damage(tmp_path, version)
    assert choice.of(1).version == versions[0]
    assert choice.fallen_back == 1
    assert "an earlier one does" in caplog.text
    store.rollback(1)
    store.rollback(1)
    assert choice.of(1).version == versions[0]
    assert choice.fallen_back == 0


def test_without_a_good_version_the_shared_model_serves(store, choice, tmp_path):
    version = published(store, tmp_path, 1)
    store.promote(1, version)
    damage(tmp_path, version)
    assert choice.of(1) == choice.shared
    assert choice.of(2) == choice.shared


def test_a_pointer_that_is_not_json_changes_nothing(store, choice, tmp_path):
    store.promote(1, version := published(store, tmp_path, 1))
    assert choice.of(1).version == version
    (tmp_path / "models" / "projects" / "1" / "current.json").write_text("{half")
    assert choice.of(1).version == version


def test_promote_and_rollback_are_reported_within_five_seconds_and_the_store_is_read_once_per_second(
    store, choice, tmp_path
):
    clock = Clock()
    versions = StoreVersions(choice, clock)
    version = published(store, tmp_path, 1)
    assert versions.of(1) == versions.shared
    store.promote(1, version)
    assert versions.of(1) == versions.shared, "read less than a second ago"
    clock.now_s = 1.5
    versions.of(1)
    wait_for(lambda: versions.of(1) == version, "the answer is renewed meanwhile")
    store.rollback(1)
    clock.now_s = 5.9
    assert versions.of(1) == versions.shared, "an old answer is never given"


def test_all_versions_that_serve_are_listed_the_shared_one_first(store, choice, tmp_path):
    versions = StoreVersions(choice)
    store.promote(1, version := published(store, tmp_path, 1))
    assert versions.all() == [versions.shared]
    assert versions.of(1) == version
    assert versions.of(2) == versions.shared
    assert versions.all() == [versions.shared, version]
