"""What serves a project, as the web server says it without loading anything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from model.checkpoints.version_folder import VERSION_FILE
from model.predictor_config import PredictorSettings
from refcut_backend.errors import ModelStoreError
from refcut_backend.inference.models import ProjectModels, ServedModel
from refcut_backend.versions.files import StoreFiles, StoreSilentError
from refcut_backend.versions.serving import MAX_ASKING, ServingChoice, StoreVersions
from refcut_backend.versions.store import ModelStore
from tests.support.silent_server import silent_server
from tests.support.trained_folders import trained_folder, version_metadata
from tests.support.worker_farm import wait_for

PATIENT_S = 60
"""Wait for a store that answers: a busy machine must not fail a test."""


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


def test_the_store_is_read_once_per_second_and_an_old_answer_is_never_given(store, choice, tmp_path):
    clock = Clock()
    versions = StoreVersions(choice, clock, PATIENT_S)
    version = published(store, tmp_path, 1)
    assert versions.of(1) == versions.shared
    store.promote(1, version)
    assert versions.of(1) == versions.shared, "read less than a second ago"
    clock.now_s = 1.5
    versions.of(1)
    wait_for(lambda: versions.of(1) == version, "the answer is renewed meanwhile")
    store.rollback(1)
    clock.now_s = 5.9
    assert versions.of(1) == versions.shared, "no old answer is given while the store answers"


class Stalls:
    """The longest time for which this process was not run while it wanted to be: the control for a busy machine."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Stalls:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            started = time.monotonic()
            self._stopped.wait(PAUSE_S)
            self.longest_s = max(self.longest_s, time.monotonic() - started - PAUSE_S)


PAUSE_S = 0.02
KNOWN_WITHIN_S = 5.0


@pytest.fixture
def web_server(choice) -> Callable[[], str]:
    """What the web server says: it is asked again and again, as pages are opened."""
    versions = StoreVersions(choice, wait_s=PATIENT_S)
    return lambda: versions.of(1)


@pytest.fixture
def worker(store, choice) -> Iterator[Callable[[], str]]:
    """What a worker computes with."""
    network: Any = None
    settings = PredictorSettings()
    shared = ServedModel(choice.shared.version, network, settings)
    models = ProjectModels(
        choice, shared, lambda version, _: ServedModel(version, network, settings), limit=4
    )
    yield lambda: models.of(1).version
    models.stop()


@pytest.mark.slow
@pytest.mark.parametrize("process", ["web_server", "worker"])
def test_promote_and_rollback_are_known_within_five_seconds_in_web_servers_and_workers(
    store, choice, tmp_path, request, process
):
    """By the real clock. How long this machine kept the process waiting at most is added to the limit."""
    serving = request.getfixturevalue(process)
    version = published(store, tmp_path, 1)
    assert serving() == choice.shared.version
    for change, expected in (
        (lambda: store.promote(1, version), version),
        (lambda: store.rollback(1), choice.shared.version),
    ):
        with Stalls() as stalls:
            change()
            changed_at = time.monotonic()
            while (now := serving()) != expected and time.monotonic() - changed_at < 10 * KNOWN_WITHIN_S:
                time.sleep(PAUSE_S)
            taken_s = time.monotonic() - changed_at
        assert now == expected
        assert taken_s < KNOWN_WITHIN_S + 3 * stalls.longest_s, stalls.longest_s


def test_all_versions_that_serve_are_listed_the_shared_one_first(store, choice, tmp_path):
    versions = StoreVersions(choice, wait_s=PATIENT_S)
    store.promote(1, version := published(store, tmp_path, 1))
    assert versions.all() == [versions.shared]
    assert versions.of(1) == version
    assert versions.of(2) == versions.shared
    assert versions.all() == [versions.shared, version]


class SilentFiles(StoreFiles):
    """A store that does not answer until it is released."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.released = threading.Event()
        self.reads = 0

    def read(self, name: str) -> bytes:
        self.reads += 1
        self.released.wait(PATIENT_S)
        return super().read(name)


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[SilentFiles]:
    files = SilentFiles(str(tmp_path / "models"))
    yield files
    files.released.set()


def test_a_silent_store_is_waited_for_once_and_then_the_shared_model_serves(silent, tmp_path):
    choice = ServingChoice(ModelStore(silent, tmp_path / "cache"), trained_folder(tmp_path / "shared"))
    versions = StoreVersions(choice, wait_s=0.2)
    names = [versions.of(1) for _ in range(200)]  # 40 s if each of them waited
    assert set(names) == {versions.shared}
    assert silent.reads == 1
    silent.released.set()
    wait_for(lambda: versions.all() == [versions.shared] and not versions._asked_at, "the store has answered")


def test_a_silent_store_collects_no_threads_however_many_projects_there_are(silent, tmp_path):
    choice = ServingChoice(ModelStore(silent, tmp_path / "cache"), trained_folder(tmp_path / "shared"))
    versions = StoreVersions(choice, wait_s=0)
    for project in range(10 * MAX_ASKING):
        assert versions.of(project + 1) == versions.shared
    assert sum(thread.name == "model-version" for thread in threading.enumerate()) <= MAX_ASKING


def test_a_remote_store_that_accepts_and_never_answers_is_an_error_in_time(monkeypatch, tmp_path):
    with silent_server() as address:
        S3FileSystem.clear_instance_cache()  # an instance keeps the address that it was made with
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        store = ModelStore(StoreFiles("s3://bucket/models", limit_s=0.5), tmp_path / "cache")
        for question in (lambda: store.pointer(1), lambda: store.versions(1), store.sweep):
            with pytest.raises(ModelStoreError, match=r"does not answer within 0\.5 s"):
                question()
    S3FileSystem.clear_instance_cache()


def test_a_store_that_falls_silent_changes_nothing_for_a_project_that_it_serves(
    store, choice, tmp_path, monkeypatch
):
    first, second = published(store, tmp_path, 1), published(store, tmp_path, 2)
    store.promote(1, first)
    assert choice.of(1).version == first
    store.promote(1, second)
    with monkeypatch.context() as outage:
        outage.setattr(choice, "_check", lambda _version: fall_silent())
        assert choice.of(1).version == first
        assert choice.fallen_back == 0
    assert choice.of(1).version == second


def fall_silent() -> None:
    raise StoreSilentError("the model store does not answer")
