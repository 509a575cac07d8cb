"""What a worker makes of its settings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from model.checkpoints.weights import BASE_FILE, VERSION_FILE, save_base, save_version
from model.network.refcut import RefCut
from model.runtime.openvino import OpenVinoStages
from refcut_backend.errors import ConfigError
from refcut_backend.inference import process
from refcut_backend.settings import Settings
from tests.support.synthetic import TINY_FROZEN, random_network


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


def test_a_worker_takes_openvino_on_a_processor_and_keeps_its_form_of_the_model(settings: Settings) -> None:
    assert isinstance(stages_of(settings), OpenVinoStages)
    (kept,) = settings.runtime_cache_dir.iterdir()
    before = (kept / "image.xml").stat().st_mtime_ns
    assert isinstance(stages_of(settings), OpenVinoStages)
    assert (kept / "image.xml").stat().st_mtime_ns == before


def test_a_worker_uses_torch_when_the_settings_say_so(settings: Settings) -> None:
    assert isinstance(stages_of(settings.model_copy(update={"runtime": "torch"})), RefCut)


def test_openvino_that_is_required_and_does_not_load_is_an_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match="REFCUT_RUNTIME: OpenVINO cannot be used"):
        stages_of(settings.model_copy(update={"runtime": "openvino"}))
