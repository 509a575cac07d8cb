"""The store of learned versions, in a folder and behind another fsspec file system."""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE
from model.checkpoints.weights import load_network
from refcut_backend.errors import ModelStoreError
from refcut_backend.versions.files import StoreFiles
from refcut_backend.versions.manifest import MANIFEST_FILE
from refcut_backend.versions.store import ModelStore
from tests.support.recorded import REPOSITORY
from tests.support.s3_server import new_bucket, running_s3_server
from tests.support.trained_folders import trained_folder, version_metadata

PROJECT = 7


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    with running_s3_server() as address:
        yield address


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, or a file system of another kind."""
    if request.param == "folder":
        return str(tmp_path / "models")
    if request.param == "s3":
        server, environment = (request.getfixturevalue(name) for name in ("s3_server", "monkeypatch"))
        return f"s3://{new_bucket(server, environment)}/models"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return "memory://models"


@pytest.fixture
def store(url: str, tmp_path: Path) -> ModelStore:
    return open_store(url, tmp_path)


def open_store(url: str, tmp_path: Path, days: itertools.count[int] | None = None) -> ModelStore:
    """As another process would; each version is published a day after the one before."""
    later = days or itertools.count()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return ModelStore(StoreFiles(url), tmp_path / "cache", lambda: start + timedelta(days=next(later)))


def publish(store: ModelStore, tmp_path: Path, seed: int, project: int = PROJECT) -> str:
    return store.publish(project, trained_folder(tmp_path / f"run-{seed}", seed), version_metadata(seed=seed))


def test_a_published_version_is_found_and_loads_but_serves_nobody(store, url, tmp_path):
    version = publish(store, tmp_path, 1)
    assert version.startswith("tiny-")
    assert len(version) == len("tiny-") + 8
    found = open_store(url, tmp_path)
    assert found.versions(PROJECT) == [version]
    assert found.current(PROJECT) is None
    folder = found.local_folder(version)
    assert (folder / VERSION_FILE).read_bytes() == (tmp_path / "run-1" / VERSION_FILE).read_bytes()
    load_network(folder)
    manifest = found.manifest(version)
    assert (manifest.project_id, manifest.metadata) == (PROJECT, version_metadata(seed=1))


def test_publishing_again_after_a_crash_changes_nothing(store, tmp_path):
    run = trained_folder(tmp_path / "run")
    assert store.publish(PROJECT, run, version_metadata()) == store.publish(PROJECT, run, version_metadata())
    assert len(store.versions(PROJECT)) == 1


def test_the_base_is_stored_once_for_all_versions(store, url, tmp_path):
    for seed in (1, 2, 3):
        store.local_folder(publish(store, tmp_path, seed))
    assert len(StoreFiles(url).files("bases")) == 1
    folders = [store.local_folder(version) for version in store.versions(PROJECT)]
    assert len({(folder / BASE_FILE).stat().st_ino for folder in folders}) == 1


def test_pictures_come_along(store, tmp_path):
    version = publish(store, tmp_path, 1)
    (picture,) = store.save_pictures(version, tmp_path / "pictures")
    assert picture.read_bytes() == b"a picture"


def test_promote_and_rollback_go_forth_and_back_to_the_shared_model(store, url, tmp_path):
    first, second = publish(store, tmp_path, 1), publish(store, tmp_path, 2)
    store.promote(PROJECT, first)
    store.promote(PROJECT, second)
    assert open_store(url, tmp_path).current(PROJECT) == second
    assert store.rollback(PROJECT) == first
    assert store.rollback(PROJECT) is None
    assert open_store(url, tmp_path).current(PROJECT) is None
    with pytest.raises(ModelStoreError, match="nothing served"):
        store.rollback(PROJECT)


def test_versions_that_serve_are_listed_the_newest_first_without_those_that_serve_no_more(store, tmp_path):
    assert store.serving() == []
    versions = [
        store.publish(project, trained_folder(tmp_path / str(seed), seed), version_metadata())
        for seed, project in enumerate((1, 2, 2, 3))
    ]
    for project, version in ((2, versions[1]), (1, versions[0]), (2, versions[2]), (3, versions[3])):
        store.promote(project, version)
    store.rollback(3)
    assert store.serving() == [versions[2], versions[0]]


def test_a_version_of_project_a_never_serves_project_b(store, tmp_path):
    version = publish(store, tmp_path, 1)
    store.promote(PROJECT, version)
    with pytest.raises(ModelStoreError, match="not a version of project 8"):
        store.promote(8, version)
    assert store.current(8) is None
    assert store.versions(8) == []
    assert store.prune(8) == []
    with pytest.raises(ModelStoreError):
        store.rollback(8)
    assert store.current(PROJECT) == version


def test_the_same_weights_in_two_projects_are_two_versions(store, tmp_path):
    one, other = publish(store, tmp_path, 1), publish(store, tmp_path, 1, project=8)
    assert one != other
    assert (store.versions(PROJECT), store.versions(8)) == ([one], [other])


@pytest.mark.slow
def test_pruning_keeps_the_three_newest_what_serves_and_what_a_rollback_brings_back(store, url, tmp_path):
    versions = [publish(store, tmp_path, seed) for seed in range(1, 8)]
    for version in versions[:3]:
        store.promote(PROJECT, version)
    assert store.prune(PROJECT, 1) == [versions[3], versions[0]]
    again = open_store(url, tmp_path)
    assert set(again.versions(PROJECT)) == {versions[1], versions[2], *versions[4:]}
    assert again.rollback(PROJECT) == versions[1]
    assert again.rollback(PROJECT) is None


@pytest.mark.parametrize("damaged", [VERSION_FILE, BASE_FILE])
@pytest.mark.parametrize("how", ["a byte is another", "cut off", "gone"])
def test_damaged_weights_are_never_handed_out(store, url, tmp_path, damaged, how):
    version = publish(store, tmp_path, 1)
    files, manifest = StoreFiles(url), store.manifest(version)
    name = (
        f"versions/{version}/{VERSION_FILE}" if damaged == VERSION_FILE else f"bases/{manifest.base_sha256}"
    )
    name = name if name.endswith("safetensors") else f"{name}.safetensors"
    data = bytearray(files.read(name))
    data[-1] ^= 1
    if how == "gone":
        files.remove(name)
    else:
        files.write(name, bytes(data if how == "a byte is another" else data[:-10]))
    other = open_store(url, tmp_path / "another machine")
    with pytest.raises(ModelStoreError, match="damaged or missing"):
        other.local_folder(version)
    with pytest.raises(ModelStoreError, match="damaged or missing"):
        other.promote(PROJECT, version)
    assert other.current(PROJECT) is None


def test_half_written_folders_are_ignored_and_swept(store, url, tmp_path):
    version = publish(store, tmp_path, 1)
    files = StoreFiles(url)
    files.write("versions/tiny-0123abcd/version.safetensors", b"half")
    files.write(f"bases/{'0' * 64}.safetensors", b"half")
    assert store.versions(PROJECT) == [version]
    with pytest.raises(ModelStoreError, match="there is no version"):
        store.promote(PROJECT, "tiny-0123abcd")
    store.sweep()
    assert len(files.folders("versions")) == 2, "somebody may be writing it"
    store.sweep(older_than_s=0)
    assert files.folders("versions") == [version]
    assert len(files.files("bases")) == 1
    store.local_folder(version)


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", [VERSION_FILE, BASE_FILE])
def test_a_hostile_pickle_as_weights_is_refused_and_nothing_of_it_runs(store, tmp_path, name):
    run, canary = trained_folder(tmp_path / "run"), tmp_path / "canary"
    (run / name).write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ModelStoreError, match="not a complete safetensors file"):
        store.publish(PROJECT, run, version_metadata())
    assert store.versions(PROJECT) == []
    assert not canary.exists()


def test_weights_of_another_base_are_refused(store, tmp_path):
    run = trained_folder(tmp_path / "run")
    shutil.copy(run / VERSION_FILE, run / BASE_FILE)
    with pytest.raises(ModelStoreError, match="another base"):
        store.publish(PROJECT, run, version_metadata())


@pytest.mark.parametrize("name", ["../../etc/passwd", "tiny-0123abcd/../x", "", "a" * 500, "tiny-0123abcg"])
def test_a_name_that_is_not_a_version_reaches_no_path(store, name):
    for action in (store.manifest, store.local_folder, store.check, lambda n: store.promote(PROJECT, n)):
        with pytest.raises(ModelStoreError, match="not the name of a version"):
            action(name)


KILLED_PUBLISHER = """
import os, signal, sys
from pathlib import Path
from refcut_backend.versions import files
from refcut_backend.versions.store import ModelStore
step, url, run = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
taken = 0
def counted(name):
    original = getattr(os, name)
    def call(*arguments, **named):
        global taken
        taken += 1
        if taken == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)
    setattr(os, name, call)
for name in ("replace", "fsync", "link"):
    counted(name)
store = ModelStore.open(url)
version = store.publish(7, run, {"parent": "tiny-00000000"})
store.promote(7, version)
print("done")
"""


@pytest.mark.slow
def test_a_kill_between_writing_weights_and_promoting_leaves_the_serving_model_as_it_was(tmp_path):
    url = str(tmp_path / "models")
    before = open_store(url, tmp_path)
    serving = publish(before, tmp_path, 1)
    before.promote(PROJECT, serving)
    run = trained_folder(tmp_path / "run-2", 2)
    switched_at: list[int] = []
    for step in itertools.count(1):
        copy = shutil.copytree(url, tmp_path / f"models-{step}")
        done = subprocess.run(
            [sys.executable, "-c", KILLED_PUBLISHER, str(step), str(copy), str(run)],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            timeout=120,
        )
        assert done.returncode in (0, -9), done.stderr
        after = open_store(str(copy), tmp_path / f"cache-{step}")
        current = after.current(PROJECT)
        load_network(after.local_folder(str(current)))
        for version in after.versions(PROJECT):
            load_network(after.local_folder(version))
        if done.returncode == 0:
            assert current != serving
            break
        if current != serving:
            switched_at.append(step)
        after.sweep(older_than_s=0)
        assert set(StoreFiles(str(copy)).folders("versions")) == set(after.versions(PROJECT))
    assert step > 8
    assert switched_at in ([], [step - 1]), "only once the pointer has been replaced"


def test_every_file_of_a_version_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    store, run = open_store(str(tmp_path / "models"), tmp_path), trained_folder(tmp_path / "run-1", 1)
    flushed: list[str] = []
    named: list[Path] = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        assert str(source) in flushed, f"{target} has its name before its content is on the disk"
        named.append(Path(target))
        replace(source, target)
        flushed.clear()

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    store.promote(PROJECT, store.publish(PROJECT, run, version_metadata(seed=1)))
    assert {path.name for path in named} >= {VERSION_FILE, MANIFEST_FILE}
    assert str(named[-1].parent) in flushed, "the pointer's new name is on the disk"


def test_a_disk_that_is_full_leaves_no_half_version(tmp_path, monkeypatch):
    store, run = open_store(str(tmp_path / "models"), tmp_path), trained_folder(tmp_path / "run-1", 1)

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(ModelStoreError, match="No space left on device"):
            store.publish(PROJECT, run, version_metadata(seed=1))
    assert store.versions(PROJECT) == []
    assert not list((tmp_path / "models").rglob("*.partial"))
    publish(store, tmp_path, 1)
