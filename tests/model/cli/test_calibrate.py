"""The command that corrects what a version expects of its masks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE, version_name
from model.checkpoints.weights import load_network, save_base, save_version
from model.cli.calibrate import calibrate
from model.errors import DataError, WeightsError
from model.evaluation.records import RECORDS_FILE, SETTINGS_FILE
from model.network.config import NetworkConfig
from tests.support.synthetic import TINY_FROZEN, TINY_READING, random_network


def version(folder: Path, config: NetworkConfig = TINY_READING) -> Path:
    folder.mkdir()
    network = random_network(config)
    save_base(network, folder / BASE_FILE)
    save_version(network.state_dict(), config, folder / BASE_FILE, folder / VERSION_FILE)
    return folder


def results(folder: Path, weights: str, expected: float, measured: float, masks: int = 120) -> Path:
    folder.mkdir()
    (folder / SETTINGS_FILE).write_text(json.dumps({"weights": weights}))
    line = {
        "set_name": "cars",
        "kind": "single",
        "mode": "right",
        "image": "a.png",
        "references": [],
        "referenced": True,
        "clicks": [[1, 1, 1]],
        "ious": [measured],
        "seconds": [0.1],
        "removed": [],
        "first_mask": {},
        "expected_ious": [expected],
    }
    lines = [json.dumps({**line, "sample": f"{number}/single/door"}) for number in range(masks)]
    (folder / RECORDS_FILE).write_text("".join(one + "\n" for one in lines))
    return folder


def test_a_version_that_expects_too_much_expects_less_afterwards_and_nothing_else_changes(
    tmp_path: Path,
) -> None:
    before = version(tmp_path / "new")
    found = calibrate(
        before, results(tmp_path / "results", version_name(before), 0.9, 0.5), tmp_path / "calibrated"
    )
    assert found.shift < 0
    was, now = load_network(before), load_network(tmp_path / "calibrated")
    for name, value in now.state_dict().items():
        if name != "candidates.calibration":
            assert torch.allclose(value, was.state_dict()[name], atol=1e-3), name
    scale, shift = now.candidates.calibration.tolist()
    assert scale * torch.logit(torch.tensor(0.9)) + shift == pytest.approx(0, abs=0.3)


def test_a_second_calibration_adds_to_the_first(tmp_path: Path) -> None:
    before = version(tmp_path / "new")
    calibrate(before, results(tmp_path / "one", version_name(before), 0.9, 0.5), tmp_path / "first")
    again = calibrate(
        tmp_path / "first",
        results(tmp_path / "two", version_name(tmp_path / "first"), 0.5, 0.5),
        tmp_path / "second",
    )
    assert again.shift == pytest.approx(0, abs=0.02)
    one, two = (load_network(tmp_path / name).candidates.calibration for name in ("first", "second"))
    assert torch.allclose(one, two, atol=0.05)


def test_results_of_another_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has results of s14-other, not of"):
        calibrate(
            version(tmp_path / "new"),
            results(tmp_path / "results", "s14-other", 0.9, 0.5),
            tmp_path / "calibrated",
        )


def test_a_version_that_does_not_estimate_ious_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not estimate the IoU"):
        calibrate(version(tmp_path / "old", TINY_FROZEN), tmp_path, tmp_path / "calibrated")
    with pytest.raises(WeightsError, match="is the version itself"):
        calibrate(tmp_path / "old", tmp_path, tmp_path / "old")
