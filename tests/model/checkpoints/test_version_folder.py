"""What the files of a version say without being loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE, can_be_averaged
from model.checkpoints.weights import save_base, save_network, save_version
from model.errors import WeightsError
from tests.support.synthetic import TINY_SIMPLECLICK, random_network
from tests.support.synthetic_snapshot import parent_version, with_another_encoder, with_another_shape


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return parent_version(tmp_path)


def described_as_before_there_was_a_learned_similarity(version: Path, folder: Path) -> Path:
    """The same weights, by code that did not know the word."""
    shutil.copytree(version, folder)
    with safe_open(folder / VERSION_FILE, framework="np") as file:
        metadata = file.metadata()
    fields = json.loads(metadata["config"])
    assert fields.pop("likeness_dim") == 0
    save_file(
        load_file(folder / VERSION_FILE), folder / VERSION_FILE, metadata | {"config": json.dumps(fields)}
    )
    return folder


def test_versions_of_one_shape_can_be_averaged_however_old_their_description(
    version: Path, tmp_path: Path
) -> None:
    today = with_another_shape(version, tmp_path / "today")
    before = described_as_before_there_was_a_learned_similarity(today, tmp_path / "before")
    assert can_be_averaged(today, before)
    assert not can_be_averaged(version, before)


def test_versions_on_another_encoder_cannot_be_averaged(version: Path, tmp_path: Path) -> None:
    assert can_be_averaged(version, version)
    assert not can_be_averaged(version, with_another_encoder(version, tmp_path / "other"))


def test_a_version_can_be_averaged_with_the_whole_network_whose_encoder_it_has(tmp_path: Path) -> None:
    network = random_network(TINY_SIMPLECLICK)
    save_network(network.state_dict(), network.config, tmp_path / "whole.safetensors")
    version, stranger = tmp_path / "version", tmp_path / "stranger"
    for folder, origin in ((version, tmp_path / "whole.safetensors"), (stranger, None)):
        save_base(network, folder / BASE_FILE, origin)
        save_version(network.state_dict(), network.config, folder / BASE_FILE, folder / VERSION_FILE)
    assert can_be_averaged(version, tmp_path / "whole.safetensors")
    assert can_be_averaged(tmp_path / "whole.safetensors", version)
    assert not can_be_averaged(stranger, tmp_path / "whole.safetensors")
    assert not can_be_averaged(version, tmp_path / "missing.safetensors")


def test_a_version_that_cannot_be_read_is_named(version: Path, tmp_path: Path) -> None:
    shutil.copytree(version, tmp_path / "damaged")
    (tmp_path / "damaged" / VERSION_FILE).write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="damaged"):
        can_be_averaged(version, tmp_path / "damaged")
