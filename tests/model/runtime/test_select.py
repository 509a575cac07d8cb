"""OpenVINO is taken where it helps, never silently instead of what was asked for by name, and never a must."""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path

import pytest

from model.errors import RuntimeChoiceError
from model.predictor_config import PredictorSettings
from model.runtime.openvino import OpenVinoStages
from model.runtime.select import with_runtime
from tests.support.synthetic import TINY_FROZEN, random_network

SETTINGS = PredictorSettings(network_px=56)


def test_auto_takes_openvino_on_a_processor() -> None:
    network = random_network(TINY_FROZEN)
    assert isinstance(with_runtime(network, SETTINGS, "auto"), OpenVinoStages)
    assert with_runtime(network, SETTINGS, "torch") is network


@pytest.mark.parametrize("switch", ["flip", "bfloat16"])
def test_what_openvino_is_not_for_stays_with_torch(switch: str) -> None:
    network = random_network(TINY_FROZEN)
    settings = dataclasses.replace(SETTINGS, **{switch: True})
    assert with_runtime(network, settings, "auto") is network
    with pytest.raises(RuntimeChoiceError, match="without flip"):
        with_runtime(network, settings, "openvino")


def test_without_openvino_clicks_are_computed_by_torch_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    network = random_network(TINY_FROZEN)
    with caplog.at_level(logging.WARNING):
        assert with_runtime(network, SETTINGS, "auto") is network
    assert "computed by torch" in caplog.text
    with pytest.raises(RuntimeChoiceError, match="OpenVINO cannot be used"):
        with_runtime(network, SETTINGS, "openvino")


def test_a_folder_that_cannot_be_written_leaves_the_work_to_torch(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    network = random_network(TINY_FROZEN)
    assert with_runtime(network, SETTINGS, "auto", tmp_path / "file") is network
