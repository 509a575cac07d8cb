"""A trained reader in a version, whole or by a share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from model.checkpoints.weights import load_network, save_network
from model.cli.take_reader import main, take_reader
from model.errors import WeightsError
from model.network.config import ReaderConfig
from model.network.reader import Reader
from model.training.reader_training import load_reader, save_reader
from tests.support.synthetic import TINY_FROZEN, TINY_READER, TINY_READING
from tests.support.synthetic_snapshot import parent_version


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return parent_version(tmp_path / "version", TINY_READING)


def trained_reader(version: Path, path: Path, add: float = 0.5) -> Path:
    """The version's reader after some training: every number is larger."""
    reader = load_network(version).reader
    save_reader({name: value + add for name, value in reader.state_dict().items()}, reader, path)
    return path


def other_reader(path: Path, feature_dim: int, config: ReaderConfig) -> Path:
    reader = Reader(feature_dim, config)
    save_reader(reader.state_dict(), reader, path)
    return path


@pytest.mark.parametrize(
    ("options", "share"), [([], 1.0), (["--share", "0.25"], 0.25), (["--share", "0"], 0.0)]
)
def test_the_reader_lies_between_by_the_share_and_nothing_else_changes(
    tmp_path: Path, version: Path, options: list[str], share: float
) -> None:
    reader = trained_reader(version, tmp_path / "reader.safetensors")
    main([str(version), str(reader), *options, "--out", str(tmp_path / "out")])

    before, after = load_network(version).state_dict(), load_network(tmp_path / "out").state_dict()
    assert any(name.startswith("reader.") for name in before)
    assert after.keys() == before.keys()
    for name, value in before.items():
        expected = value + 0.5 * share if name.startswith("reader.") else value
        torch.testing.assert_close(after[name], expected, atol=2e-3, rtol=2e-3, msg=name)


def test_the_result_is_also_a_reader_that_a_training_can_start_from(tmp_path: Path, version: Path) -> None:
    take_reader(version, trained_reader(version, tmp_path / "reader.safetensors"), 0.5, tmp_path / "out")
    alone = load_reader(tmp_path / "out" / "reader.safetensors").state_dict()
    inside = load_network(tmp_path / "out").reader
    for name, value in inside.state_dict().items():
        torch.testing.assert_close(alone[name], value, atol=2e-3, rtol=2e-3)


def refusal(version: Path, reader: Path, out: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        take_reader(version, reader, 0.5, out)
    return str(caught.value)


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path: Path, version: Path) -> None:
    out, path = tmp_path / "out", tmp_path / "reader.safetensors"
    own = load_network(version).reader
    dim = own.embed.in_features
    deeper = dataclasses.replace(TINY_READER, blocks=TINY_READER.blocks + 1)
    assert "does not fit" in refusal(version, other_reader(path, dim, deeper), out)
    assert "other features" in refusal(version, other_reader(path, 2 * dim, TINY_READER), out)
    without = parent_version(tmp_path / "without", TINY_FROZEN)
    assert "does not fit" in refusal(without, other_reader(path, dim, TINY_READER), out)
    assert "the version itself" in refusal(version, trained_reader(version, path), version)
    whole = tmp_path / "network.safetensors"
    network = load_network(version)
    save_network(network.state_dict(), network.config, whole)
    assert "a whole network" in refusal(whole, trained_reader(version, path), out)
    assert not out.exists()


def test_a_file_that_is_no_reader_ends_in_one_line(
    tmp_path: Path, version: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(version), str(version / "version.safetensors"), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "name reader.safetensors of a run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
