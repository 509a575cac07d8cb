"""What a worker makes of its settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch

from model.checkpoints.weights import BASE_FILE, VERSION_FILE, save_base, save_version
from model.network.refcut import RefCut
from model.runtime.openvino import OpenVinoStages
from refcut_backend.errors import ConfigError
from refcut_backend.inference import process
from refcut_backend.inference.engine import ClickEngine
from refcut_backend.inference.jobs import JobRunner
from refcut_backend.settings import Settings
from tests.support.synthetic import TINY_FROZEN, random_network

pytestmark = pytest.mark.usefixtures("databases_closed")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "version"
    network = random_network(TINY_FROZEN)
    save_base(network, folder / BASE_FILE)
    save_version(network.state_dict(), network.config, folder / BASE_FILE, folder / VERSION_FILE)
    return Settings(model_dir=folder, state_dir=tmp_path / "state", device="cpu")


def stages_of(settings: Settings) -> object:
    settings.state_dir.mkdir(exist_ok=True)
    return process.make_engine(settings)._models.of(1).network


@pytest.mark.slow
def test_a_worker_takes_openvino_on_a_processor_and_keeps_its_form_of_the_model(settings: Settings) -> None:
    assert isinstance(stages_of(settings), OpenVinoStages)
    before = {file: file.stat().st_mtime_ns for file in settings.runtime_cache_dir.rglob("*.xml")}
    assert before
    assert isinstance(stages_of(settings), OpenVinoStages)
    assert {file: file.stat().st_mtime_ns for file in settings.runtime_cache_dir.rglob("*.xml")} == before


def test_a_worker_uses_torch_when_the_settings_say_so(settings: Settings) -> None:
    assert isinstance(stages_of(settings.model_copy(update={"runtime": "torch"})), RefCut)


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "left"), [("openvino", 1), ("torch", 2)])
def test_openvino_gets_the_worker_s_share_of_the_cores_and_torch_no_second_pool(
    settings: Settings, runtime: str, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(5)))
    before, opencv_before = torch.get_num_threads(), cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        stages = stages_of(settings.model_copy(update={"runtime": runtime, "workers": 2}))
        assert torch.get_num_threads() == left
        assert cv2.getNumThreads() == 2
    finally:
        torch.set_num_threads(before)
        cv2.setNumThreads(opencv_before)
    if isinstance(stages, OpenVinoStages):
        for request in stages._requests.values():
            threads = request.get_compiled_model().get_property("INFERENCE_NUM_THREADS")
            assert threads == min(2, os.cpu_count() or 1), "OpenVINO takes no more than the machine has"


def test_openvino_that_is_required_and_does_not_load_is_an_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match="REFCUT_RUNTIME: OpenVINO cannot be used"):
        stages_of(settings.model_copy(update={"runtime": "openvino"}))


def test_a_worker_that_ends_stops_the_loading_of_versions(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[bool] = []

    def work(_url: str, _queues: list[str], _name: str, make_runner: Callable[[], JobRunner]) -> int:
        assert make_runner()
        assert stopped == []
        return 7

    monkeypatch.setattr(process, "work", work)
    monkeypatch.setattr(ClickEngine, "stop", lambda _engine: stopped.append(True))
    settings.state_dir.mkdir()
    settings = settings.model_copy(update={"runtime": "torch"})
    assert process.run_worker(settings, "redis://127.0.0.1:1", ["clicks"], "worker-1") == 7
    assert stopped == [True]
