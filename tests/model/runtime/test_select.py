"""OpenVINO is used where it helps, never required, and never replaced silently if it was chosen by name."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sys
from pathlib import Path

import pytest

from model.checkpoints.weights import BASE_FILE, VERSION_FILE, load_network, save_base, save_version
from model.errors import RuntimeChoiceError
from model.predictor_config import PredictorSettings, serving_settings
from model.runtime import select
from model.runtime.openvino import OpenVinoStages
from model.runtime.select import (
    is_prepared,
    needs_preparing,
    prepare,
    prepare_in_subprocess,
    with_runtime,
)
from tests.support.synthetic import TINY_FROZEN, random_network

SETTINGS = PredictorSettings(network_px=56)


def test_auto_takes_openvino_on_a_processor() -> None:
    network = random_network(TINY_FROZEN)
    assert isinstance(with_runtime(network, SETTINGS, "auto"), OpenVinoStages)
    assert with_runtime(network, SETTINGS, "torch") is network


@pytest.mark.parametrize("switch", ["flip", "bfloat16"])
def test_settings_that_openvino_cannot_run_stay_with_torch(switch: str) -> None:
    network = random_network(TINY_FROZEN)
    settings = dataclasses.replace(SETTINGS, **{switch: True})
    assert with_runtime(network, settings, "auto") is network
    with pytest.raises(RuntimeChoiceError, match="cannot be used with flip"):
        with_runtime(network, settings, "openvino")


def test_without_openvino_clicks_are_computed_by_torch_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    network = random_network(TINY_FROZEN)
    with caplog.at_level(logging.WARNING):
        assert with_runtime(network, SETTINGS, "auto") is network
    assert "torch computes the clicks" in caplog.text
    with pytest.raises(RuntimeChoiceError, match="OpenVINO cannot be used"):
        with_runtime(network, SETTINGS, "openvino")


def test_a_folder_that_cannot_be_written_leaves_the_work_to_torch(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    network = random_network(TINY_FROZEN)
    assert with_runtime(network, SETTINGS, "auto", tmp_path / "file") is network


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network, folder = random_network(TINY_FROZEN), tmp_path / "version"
    save_base(network, folder / BASE_FILE)
    save_version(network.state_dict(), network.config, folder / BASE_FILE, folder / VERSION_FILE)
    return folder


@pytest.mark.slow
def test_a_version_is_converted_in_another_process_and_only_loaded_afterwards(weights, tmp_path, monkeypatch):
    cache = tmp_path / "openvino"
    network = load_network(weights)
    assert needs_preparing(network, weights, "auto", cache)
    assert not is_prepared(weights, cache)
    prepare_in_subprocess(weights, cache)
    assert not needs_preparing(network, weights, "auto", cache)
    assert is_prepared(weights, cache)
    with monkeypatch.context() as patched:
        patched.setattr(select, "is_cached", lambda *_: pytest.fail("all weights are hashed"))
        assert not needs_preparing(network, weights, "auto", cache)
    monkeypatch.setattr("model.runtime.openvino.convert", None)
    stages = with_runtime(network, serving_settings(network.config), "openvino", cache)
    assert isinstance(stages, OpenVinoStages)


@pytest.mark.slow
def test_a_version_is_not_prepared_when_one_of_its_stages_was_removed(weights, tmp_path):
    cache = tmp_path / "openvino"
    prepare(weights, cache)
    assert is_prepared(weights, cache)
    (clicks,) = cache.glob("clicks-*")
    shutil.rmtree(clicks)
    assert not is_prepared(weights, cache)


def test_nothing_is_prepared_where_torch_serves(weights, tmp_path):
    assert not needs_preparing(load_network(weights), weights, "torch", tmp_path / "openvino")


def test_a_conversion_that_takes_too_long_says_so(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(select, "TIME_LIMIT_S", 0.01)
    with pytest.raises(RuntimeChoiceError, match=r"took longer than 0\.01 s"):
        prepare_in_subprocess(weights, tmp_path / "openvino")


@pytest.mark.slow
def test_a_conversion_that_fails_says_why(weights, tmp_path):
    (weights / BASE_FILE).write_bytes(b"damaged")
    with pytest.raises(RuntimeChoiceError, match="damaged"):
        prepare_in_subprocess(weights, tmp_path / "openvino")
