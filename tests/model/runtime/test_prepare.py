"""OpenVINO's form of a version is made by another process, before anybody waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import RuntimeChoiceError
from model.predictor_settings import serving_settings
from model.runtime import prepare
from model.runtime.choose import with_runtime
from model.runtime.openvino_stages import OpenVinoStages
from model.runtime.prepare import prepare_aside
from model.weights import BASE_FILE, VERSION_FILE, load_network, save_base, save_version
from tests.model.made_up import TINY_FROZEN, random_network


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network, folder = random_network(TINY_FROZEN), tmp_path / "version"
    save_base(network, folder / BASE_FILE)
    save_version(network.state_dict(), network.config, folder / BASE_FILE, folder / VERSION_FILE)
    return folder


def test_a_version_is_converted_aside_and_only_loaded_afterwards(weights, tmp_path, monkeypatch):
    cache = tmp_path / "openvino"
    network = load_network(weights)
    prepare_aside(network, weights, "auto", cache)
    (kept,) = cache.iterdir()
    monkeypatch.setattr("model.runtime.openvino_stages.convert", None)
    stages = with_runtime(network, serving_settings(network.config), "openvino", cache)
    assert isinstance(stages, OpenVinoStages)
    monkeypatch.setattr(prepare.subprocess, "run", None)
    prepare_aside(network, weights, "auto", cache)
    assert list(cache.iterdir()) == [kept]


def test_nothing_is_prepared_where_torch_serves(weights, tmp_path):
    prepare_aside(load_network(weights), weights, "torch", tmp_path / "openvino")
    assert not (tmp_path / "openvino").exists()


def test_a_conversion_that_fails_says_why(weights, tmp_path):
    network = load_network(weights)
    (weights / BASE_FILE).write_bytes(b"damaged")
    with pytest.raises(RuntimeChoiceError, match="damaged"):
        prepare_aside(network, weights, "auto", tmp_path / "openvino")
