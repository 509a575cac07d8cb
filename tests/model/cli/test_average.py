"""What lies between two versions, as a version."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.checkpoints.anchor import average
from model.checkpoints.version_folder import NETWORK_FILE
from model.checkpoints.weights import (
    BASE_FILE,
    VERSION_FILE,
    load_network,
    save_base,
    save_network,
    save_version,
)
from model.cli.average import main
from model.errors import WeightsError
from tests.support.synthetic import TINY_READING, TINY_SIMPLECLICK, random_network
from tests.support.synthetic_snapshot import parent_version, with_another_encoder, with_another_shape


@pytest.fixture
def begin(tmp_path: Path) -> Path:
    return parent_version(tmp_path / "begin")


@pytest.fixture
def end(tmp_path: Path, begin: Path) -> Path:
    """`begin` after some training: every learned number is 0.5 larger."""
    folder = tmp_path / "end"
    shutil.copytree(begin, folder)
    network = load_network(begin)
    learned = {name: p.detach() + 0.5 for name, p in network.named_parameters() if p.requires_grad}
    save_version(learned, network.config, folder / BASE_FILE, folder / VERSION_FILE)
    return folder


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_learned_weights_lie_between_by_the_share_and_the_encoder_is_kept(
    tmp_path: Path, begin: Path, end: Path, share: float
) -> None:
    main([str(begin), str(end), "--share", str(share), "--out", str(tmp_path / "out")])

    before, after = load_network(begin), load_network(tmp_path / "out")
    moved = dict(after.named_parameters())
    for name, parameter in before.named_parameters():
        expected = parameter + 0.5 * share if parameter.requires_grad else parameter
        assert torch.allclose(moved[name], expected, atol=2e-3), name


def test_the_correction_of_the_expected_iou_lies_between_too(tmp_path: Path) -> None:
    network = random_network(TINY_READING)
    folders = tmp_path / "first", tmp_path / "second"
    for folder, correction in zip(folders, ([0.5, -1.0], [1.5, 1.0]), strict=True):
        folder.mkdir()
        save_base(network, folder / BASE_FILE)
        network.candidates.calibration.copy_(torch.tensor(correction))
        save_version(network.state_dict(), network.config, folder / BASE_FILE, folder / VERSION_FILE)
    average(*folders, 0.25, tmp_path / "out")
    assert load_network(tmp_path / "out").candidates.calibration.tolist() == [0.75, -0.5]


@pytest.mark.parametrize("other", [with_another_encoder, with_another_shape])
def test_versions_of_another_base_or_shape_are_refused_and_nothing_is_written(
    tmp_path: Path, begin: Path, other: Callable[[Path, Path], Path]
) -> None:
    with pytest.raises(WeightsError, match="another base or shape"):
        average(begin, other(begin, tmp_path / "other"), 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def whole_network(folder: Path, add: float = 0.0, embed_dim: int = 32) -> Path:
    """The folder of a training that has written its network as one file."""
    torch.manual_seed(0)
    network = random_network(dataclasses.replace(TINY_SIMPLECLICK, embed_dim=embed_dim))
    folder.mkdir()
    tensors = {name: value + add for name, value in network.state_dict().items()}
    save_network(tensors, network.config, folder / NETWORK_FILE)
    return folder


def test_whole_networks_of_two_trainings_are_averaged(tmp_path: Path) -> None:
    first, second = whole_network(tmp_path / "first"), whole_network(tmp_path / "second", add=1.0)
    main([str(first), str(second / NETWORK_FILE), "--share", "0.25", "--out", str(tmp_path / "out")])
    before = load_network(first).state_dict()
    for name, value in load_network(tmp_path / "out").state_dict().items():
        assert torch.allclose(value, before[name] + 0.25, atol=1e-6), name


@pytest.mark.parametrize("whole_first", [True, False])
def test_a_version_is_averaged_with_the_whole_network_whose_encoder_it_has(
    tmp_path: Path, whole_first: bool
) -> None:
    whole, version = whole_network(tmp_path / "whole"), tmp_path / "version"
    network = load_network(whole)
    save_base(network, version / BASE_FILE, whole / NETWORK_FILE)
    learned = {name: value + 1 for name, value in network.state_dict().items()}
    save_version(learned, network.config, version / BASE_FILE, version / VERSION_FILE)
    first, second = (whole, version) if whole_first else (version, whole)
    average(first, second, 0.25, tmp_path / "out")
    assert (tmp_path / "out" / BASE_FILE).read_bytes() == (version / BASE_FILE).read_bytes()
    moved = 0.25 if whole_first else 0.75
    for name, value in load_network(tmp_path / "out").state_dict().items():
        step = 0.0 if name.startswith("backbone.") else moved
        assert torch.allclose(value, network.state_dict()[name] + step, atol=2e-3), name


def test_a_whole_network_of_another_shape_or_with_a_version_is_refused_and_named(
    tmp_path: Path, begin: Path
) -> None:
    first, other = whole_network(tmp_path / "first"), whole_network(tmp_path / "other", embed_dim=64)
    with pytest.raises(WeightsError, match="another shape"):
        average(first, other, 0.5, tmp_path / "out")
    with pytest.raises(WeightsError, match="another base or shape"):
        average(begin, first, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_holds_one_of_the_versions_is_refused(begin: Path, end: Path) -> None:
    before = (begin / VERSION_FILE).read_bytes()
    with pytest.raises(WeightsError, match="another folder"):
        average(begin, end, 0.5, begin)
    assert (begin / VERSION_FILE).read_bytes() == before


@pytest.mark.parametrize("share", ["1.5", "half"])
def test_an_invalid_share_is_refused_in_one_line(
    begin: Path, end: Path, share: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([str(begin), str(end), "--share", share, "--out", "out"])
    assert exit_info.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
