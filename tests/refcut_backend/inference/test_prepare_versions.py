"""Versions that serve are converted before their first click, once per machine."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from model.errors import RuntimeChoiceError
from refcut_backend.inference import prepare_versions
from refcut_backend.inference.prepare_versions import VersionPreparer
from refcut_backend.versions.files import StoreSilentError
from refcut_backend.versions.store import ModelStore
from tests.support.trained_folders import trained_folder, version_metadata


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore.open(str(tmp_path / "store"), tmp_path / "downloads")


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the versions that are converted from here on."""
    found: list[str] = []

    def convert(folder: Path, cache_dir: Path) -> None:
        found.append(folder.name)
        (cache_dir / folder.name).touch()

    monkeypatch.setattr(prepare_versions, "prepare_in_subprocess", convert)
    monkeypatch.setattr(prepare_versions, "is_prepared", lambda folder, cache: (cache / folder.name).exists())
    return found


def promoted(store: ModelStore, folder: Path, project: int) -> str:
    version = store.publish(project, trained_folder(folder / f"run-{project}", project), version_metadata())
    store.promote(project, version)
    return version


def test_versions_that_serve_are_converted_the_newest_first_and_each_once(tmp_path, store, converted):
    versions = [promoted(store, tmp_path, project) for project in (1, 2)]
    store.publish(3, trained_folder(tmp_path / "run-3", 3), version_metadata())
    preparer = VersionPreparer(store, tmp_path / "openvino")
    preparer.prepare()
    assert converted == versions[::-1]
    later = promoted(store, tmp_path, 4)
    preparer.prepare()
    VersionPreparer(store, tmp_path / "openvino").prepare()
    assert converted == [*versions[::-1], later]


def test_one_process_of_a_machine_converts_versions(tmp_path, store, converted):
    version = promoted(store, tmp_path, 1)
    preparer = VersionPreparer(store, tmp_path / "openvino")
    with (tmp_path / "openvino.preparing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        preparer.prepare()
        assert converted == []
    preparer.prepare()
    assert converted == [version]


def test_a_version_that_cannot_be_converted_holds_up_no_other_and_is_not_tried_again(
    tmp_path, store, converted, monkeypatch, caplog
):
    first, second = (promoted(store, tmp_path, project) for project in (1, 2))
    convert = prepare_versions.prepare_in_subprocess
    tries = []

    def fail_for_second(folder: Path, cache_dir: Path) -> None:
        tries.append(folder.name)
        if folder.name == second:
            raise RuntimeChoiceError("no memory", hint="")
        convert(folder, cache_dir)

    monkeypatch.setattr(prepare_versions, "prepare_in_subprocess", fail_for_second)
    preparer = VersionPreparer(store, tmp_path / "openvino")
    preparer.prepare()
    preparer.prepare()
    assert tries == [second, first]
    assert converted == [first]
    assert "a version cannot be converted ahead of time" in caplog.messages


def test_a_store_that_was_silent_is_asked_again(tmp_path, store, converted, monkeypatch):
    version = promoted(store, tmp_path, 1)
    preparer = VersionPreparer(store, tmp_path / "openvino")

    def silent(_version: str) -> Path:
        raise StoreSilentError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(store, "local_folder", silent)
        with pytest.raises(StoreSilentError):
            preparer.prepare()
    preparer.prepare()
    assert converted == [version]
