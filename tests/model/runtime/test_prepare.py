"""OpenVINO's form of a version is made by another process, before anybody waits for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from model.checkpoints.weights import BASE_FILE, VERSION_FILE, load_network, save_base, save_version
from model.errors import RuntimeChoiceError
from model.predictor_config import serving_settings
from model.runtime import openvino, select
from model.runtime.openvino import OpenVinoStages
from model.runtime.select import prepare_aside, with_runtime
from tests.support.synthetic import TINY_FROZEN, random_network


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
    monkeypatch.setattr("model.runtime.openvino.convert", None)
    stages = with_runtime(network, serving_settings(network.config), "openvino", cache)
    assert isinstance(stages, OpenVinoStages)
    monkeypatch.setattr(select.subprocess, "run", None)
    prepare_aside(network, weights, "auto", cache)
    assert list(cache.iterdir()) == [kept]


def test_nothing_is_prepared_where_torch_serves(weights, tmp_path):
    prepare_aside(load_network(weights), weights, "torch", tmp_path / "openvino")
    assert not (tmp_path / "openvino").exists()


def test_a_conversion_that_takes_too_long_says_so(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(select, "LIMIT_S", 0.01)
    with pytest.raises(RuntimeChoiceError, match=r"not made within 0\.01 s"):
        prepare_aside(load_network(weights), weights, "auto", tmp_path / "openvino")


def test_forms_that_were_used_last_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(openvino, "KEPT_NETWORKS", 2)
    cache = tmp_path / "openvino"

    def use(seed: int) -> None:
        torch.manual_seed(0)
        network = random_network(TINY_FROZEN, seed)
        with_runtime(network, serving_settings(network.config), "openvino", cache)
        for place, folder in enumerate(sorted(cache.iterdir(), key=lambda path: path.stat().st_mtime)):
            os.utime(folder, (place, place))

    use(1)
    use(2)
    use(1)
    use(3)
    monkeypatch.setattr(openvino, "convert", None)
    use(1)


def test_a_conversion_that_fails_says_why(weights, tmp_path):
    network = load_network(weights)
    (weights / BASE_FILE).write_bytes(b"damaged")
    with pytest.raises(RuntimeChoiceError, match="damaged"):
        prepare_aside(network, weights, "auto", tmp_path / "openvino")
