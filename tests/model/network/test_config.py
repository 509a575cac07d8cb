"""The description of a network, and its form in weight files."""

from __future__ import annotations

import dataclasses
import json

import pytest

from model.errors import WeightsError
from model.network.config import PRESETS, NetworkConfig
from tests.support.synthetic import TINY_FROZEN, TINY_READING


@pytest.mark.parametrize("config", [*PRESETS.values(), TINY_FROZEN, TINY_READING])
def test_a_description_comes_back_as_it_was(config: NetworkConfig) -> None:
    assert NetworkConfig.from_json(config.to_json()) == config


def test_weight_files_name_the_learned_similarity_as_they_did_before() -> None:
    fields = json.loads(TINY_FROZEN.to_json())
    assert fields["likeness_dim"] == TINY_FROZEN.learned_similarity_dim == 8
    assert "learned_similarity_dim" not in fields


def test_a_file_that_names_the_learned_similarity_by_its_new_name_is_read_too() -> None:
    text = json.dumps(dataclasses.asdict(TINY_FROZEN))
    assert NetworkConfig.from_json(text) == TINY_FROZEN


def test_weight_files_of_a_reader_without_affinity_are_as_before_there_was_one() -> None:
    assert TINY_READING.reader is not None
    plain = dataclasses.replace(
        TINY_READING, reader=dataclasses.replace(TINY_READING.reader, affinity_heads=0)
    )
    assert not any(name.startswith("affinity") for name in json.loads(plain.to_json())["reader"])
    assert json.loads(TINY_READING.to_json())["reader"]["affinity_heads"] == 2


@pytest.mark.parametrize("text", ["", "[]", '{"embed_dim": 8}', '{"neck_channels": 3}'])
def test_a_text_that_describes_no_network_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        NetworkConfig.from_json(text)
