"""Each project's clicks are answered by its own version, which is exchanged between two clicks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from model.checkpoints.version_folder import VERSION_FILE
from model.checkpoints.weights import load_network
from model.network.refcut import RefCut
from refcut_backend.images.cache import ImageCache
from refcut_backend.images.decode import decode_image
from refcut_backend.inference import models
from refcut_backend.inference.engine import ClickEngine
from refcut_backend.inference.load_model import ModelLoader
from refcut_backend.inference.models import ProjectModels, ServedModel
from refcut_backend.label_studio.prompts import PercentClick
from refcut_backend.queue.messages import ClickJob
from refcut_backend.versions.files import StoreSilentError
from refcut_backend.versions.serving import ServingChoice
from refcut_backend.versions.store import ModelStore
from tests.refcut_backend.inference.test_engine import LIMITS, Store
from tests.support.trained_folders import trained_folder, version_metadata
from tests.support.worker_farm import wait_for


class World:
    """A store with versions of tiny networks, and what a worker makes of it. gates: versions whose loading is held up
    until their event is set; unconverted: versions that say before that they have to be converted; refused: versions that
    cannot be loaded; fails_with: what every load raises."""

    def __init__(self, folder: Path, limit: int = 2) -> None:
        self.folder = folder
        self.store = ModelStore.open(str(folder / "models"), folder / "cache")
        self.shared_dir = trained_folder(folder / "shared")
        self.choice = ServingChoice(self.store, self.shared_dir, self.store.local_folder)
        self.loader = ModelLoader(torch.device("cpu"), "torch", folder / "openvino")
        shared = self.loader.load_shared(self.shared_dir, self.choice.shared.version)
        self.loads: list[str] = []
        self.gates: dict[str, threading.Event] = {}
        self.unconverted: set[str] = set()
        self.refused: set[str] = set()
        self.fails_with: Exception | None = None
        self.models = ProjectModels(self.choice, shared, self.load, limit, first_wait_s=30)

    def load(self, version: str, on_conversion: Callable[[], None]) -> ServedModel:
        self.loads.append(version)
        if version in self.unconverted:
            on_conversion()
        if version in self.gates:
            assert self.gates[version].wait(60)
        if self.fails_with is not None:
            raise self.fails_with
        if version in self.refused:
            raise RuntimeError("cannot be loaded")
        return self.loader.load(self.store.local_folder(version), version)

    def publish(self, seed: int, project: int = 1) -> str:
        return self.store.publish(
            project, trained_folder(self.folder / f"run-{seed}", seed), version_metadata()
        )

    def serves(self, project: int = 1) -> str:
        return self.models.of(project).version

    def wait_until(self, version: str, project: int = 1) -> None:
        wait_for(lambda: self.serves(project) == version, f"{version} serves project {project}")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for gate in world.gates.values():
        gate.set()
    world.models.stop()


def test_a_project_without_versions_is_served_by_the_shared_model(world):
    assert world.serves() == world.choice.shared.version
    assert world.loads == []


def test_the_first_click_of_a_project_waits_for_its_version(world):
    version = world.publish(1)
    world.store.promote(1, version)
    assert world.serves() == version


def test_the_first_click_of_a_project_waits_for_no_conversion(world):
    version = world.publish(1)
    world.store.promote(1, version)
    world.unconverted.add(version)
    world.gates[version] = threading.Event()
    # The gate is still closed, so this returns only if it does not wait for the load.
    assert world.serves() == world.choice.shared.version
    assert world.loads == [version]
    world.gates[version].set()
    world.wait_until(version)


@pytest.mark.slow
def test_promote_and_rollback_serve_their_project_and_no_other(world):
    first, second = world.publish(1), world.publish(2)
    world.store.promote(1, first)
    assert world.serves(1) == first
    assert world.serves(2) == world.choice.shared.version
    for change, expected in (
        (lambda: world.store.promote(1, second), second),
        (lambda: world.store.rollback(1), first),
        (lambda: world.store.rollback(1), world.choice.shared.version),
    ):
        change()
        world.wait_until(expected)
        assert world.serves(2) == world.choice.shared.version


def test_clicks_are_answered_by_the_old_version_until_the_new_one_is_ready(world):
    first, second = world.publish(1), world.publish(2)
    world.store.promote(1, first)
    assert world.serves() == first
    world.gates[second] = threading.Event()
    world.store.promote(1, second)
    wait_for(lambda: second in world.loads, "the new version is being loaded")
    began = time.monotonic()
    assert world.serves() == first
    assert time.monotonic() - began < 1, "no click waits for a load"
    world.gates[second].set()
    world.wait_until(second)


@pytest.mark.slow
def test_a_slow_load_of_one_project_holds_up_no_other(world):
    slow, quick = world.publish(1, project=1), world.publish(2, project=2)
    assert world.serves(1) == world.choice.shared.version
    world.gates[slow] = threading.Event()
    world.store.promote(1, slow)
    wait_for(lambda: slow in world.loads, "it is being loaded")
    world.store.promote(2, quick)
    assert world.serves(2) == quick


def test_a_current_version_that_is_corrupt_falls_back_to_the_previous_good_one(tmp_path, caplog):
    world = World(tmp_path)
    first, second = world.publish(1), world.publish(2)
    world.store.promote(1, first)
    world.store.promote(1, second)
    weights = tmp_path / "models" / "versions" / second / VERSION_FILE
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    restarted = World(tmp_path)
    assert restarted.serves() == first
    assert restarted.choice.fallen_back == 1
    assert any(record.msg == "a version of the model is damaged" for record in caplog.records)
    restarted.models.stop()


@pytest.mark.slow
def test_a_version_that_cannot_be_loaded_falls_back_too(world):
    first, second = world.publish(1), world.publish(2)
    world.store.promote(1, first)
    assert world.serves() == first
    world.refused.add(second)
    world.store.promote(1, second)
    wait_for(lambda: world.choice.fallen_back == 1, "it has been refused")
    assert world.serves() == first
    world.store.rollback(1)
    wait_for(lambda: world.choice.fallen_back == 0, "all is well again")


@pytest.mark.parametrize("error", [StoreSilentError("no answer"), Exception("the network's own error")])
def test_a_download_that_fails_is_tried_again_and_does_not_cost_the_version(world, monkeypatch, error):
    monkeypatch.setattr(models, "RETRY_S", 0.1)
    world.store.promote(1, version := world.publish(1))
    world.fails_with = error
    assert world.serves() == world.choice.shared.version
    world.fails_with = None
    world.wait_until(version)
    assert world.choice.fallen_back == 0


def test_a_store_that_cannot_be_read_changes_nothing(world, monkeypatch):
    version = world.publish(1)
    world.store.promote(1, version)
    assert world.serves() == version

    def broken(_project: int) -> None:
        raise OSError("the disk is away")

    monkeypatch.setattr(world.store, "pointer", broken)
    monkeypatch.setattr(models, "LOOK_EVERY_S", 0.01)
    time.sleep(0.2)
    assert world.serves(1) == version
    assert world.serves(2) == world.choice.shared.version


def test_the_frozen_base_is_in_memory_once(world):
    version = world.publish(1)
    world.store.promote(1, version)
    shared, own = world.models.shared.network, world.models.of(1).network
    assert isinstance(shared, RefCut)
    assert isinstance(own, RefCut)
    assert own.backbone.pos_embed.data_ptr() == shared.backbone.pos_embed.data_ptr()
    assert own.comparison_mean.data_ptr() == shared.comparison_mean.data_ptr()
    separate = load_network(world.store.local_folder(version))
    assert all(torch.equal(own.state_dict()[name], value) for name, value in separate.state_dict().items())


def test_only_so_many_versions_are_kept_and_the_engine_lets_go_of_the_others(world):
    for project in (1, 2, 3):
        version = world.publish(project, project)
        world.store.promote(project, version)
    versions = [world.serves(project) for project in (1, 2, 3)]
    kept = {name for name, _ in world.models.loaded()}
    assert len(kept) == 3, "the shared one and two of their own"
    assert f"{versions[0]}-RefCut" not in kept


def test_a_project_whose_version_was_just_unloaded_is_not_loaded_again(world):
    for project in (1, 2, 3):
        world.store.promote(project, world.publish(project, project))
        world.serves(project)
    assert not world.models._is_due(1)  # as the thread would ask that listed the projects before
    assert world.models._is_due(2) is False
    assert len(world.loads) == 3


def test_the_end_waits_for_what_is_being_loaded_because_openvino_would_abort_the_process(world):
    version = world.publish(1)
    assert world.serves() == world.choice.shared.version
    world.gates[version] = threading.Event()
    world.store.promote(1, version)
    wait_for(lambda: version in world.loads, "it is being loaded")
    threading.Timer(0.3, world.gates[version].set).start()
    world.models.stop()
    assert world.gates[version].is_set()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("model-")]
    assert {name for name, _ in world.models.loaded()} >= {f"{version}-RefCut"}


def test_a_click_is_answered_with_its_projects_version_and_says_so(world):
    images = Store()
    image_cache = ImageCache(
        images.fetch, lambda data: decode_image(data, 10**8), max_bytes=2**25, limit_s=60, recheck_s=1e9
    )
    engine = ClickEngine(world.models, image_cache, images.references.get, LIMITS)
    click = ClickJob(1, 2, "/a.jpg", "Door", (PercentClick(50, 50, True),), ())
    before = engine.answer(click)
    version = world.publish(5)
    world.store.promote(1, version)
    world.wait_until(version)
    after = engine.answer(click)
    assert (before.model_version, after.model_version) == (world.choice.shared.version, version)
    assert before.rle != after.rle or before.score != after.score
    world.store.rollback(1)
    world.wait_until(world.choice.shared.version)
    again = engine.answer(click)
    assert (again.model_version, again.rle) == (before.model_version, before.rle)
    assert images.loaded == ["/a.jpg"], "the image stays at hand"
    assert {key[1][0] for key in engine._open_images._cache} == {f"{before.model_version}-RefCut"}
