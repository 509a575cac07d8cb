"""What the files of a version say without being loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.checkpoints.version_folder import VERSION_FILE, can_be_averaged
from model.errors import WeightsError
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


def test_a_version_that_cannot_be_read_is_named(version: Path, tmp_path: Path) -> None:
    shutil.copytree(version, tmp_path / "damaged")
    (tmp_path / "damaged" / VERSION_FILE).write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="damaged"):
        can_be_averaged(version, tmp_path / "damaged")
