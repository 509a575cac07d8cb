"""New parts for a trained network."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from model.errors import WeightsError
from model.network.reader import Reader
from model.network.refcut import RefCut
from model.network.similarity import PatchCosines
from model.training.growth import grown_reader, with_candidates, with_reader
from tests.support.synthetic import TINY_FROZEN, TINY_READER, random_network


@torch.no_grad()
def meant(network: RefCut) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    features = network.encode_image(torch.rand(1, 3, 56, 56, generator=generator))
    coords = torch.rand(1, 4, 56, 56, generator=generator)[:, : network.config.click_map_channels]
    return network.segment(features, coords).meant


def test_candidates_and_the_box_input_leave_the_meant_mask_as_it_was() -> None:
    before = random_network(TINY_FROZEN)
    after = with_candidates(before)
    assert (after.config.candidates, after.config.box_input) == (3, True)
    assert torch.allclose(meant(before), meant(after), atol=1e-5)


def test_a_network_that_has_them_stays_itself() -> None:
    grown = with_candidates(random_network(TINY_FROZEN))
    assert with_candidates(grown) is grown


def features_and_clicks() -> tuple[Tensor, Tensor, Tensor]:
    """Image and reference (1, 3, 56, 56) with a mask on the reference, and a click on the image."""
    generator = torch.Generator().manual_seed(3)
    image, reference = torch.rand(2, 1, 3, 56, 56, generator=generator)
    coords = torch.zeros(1, 3, 56, 56)
    coords[:, 1, 20:30, 20:30] = 1
    return image, reference, coords


def logits(network: RefCut) -> Tensor:
    image, reference, coords = features_and_clicks()
    mask = torch.zeros(1, 1, 56, 56)
    mask[..., 10:40, 14:30] = 1
    features = network.encode_image(image)
    prepared = network.prepare_reference(features, network.encode_reference(reference, mask, None))
    return network.segment(features, coords, prepared).logits


@pytest.mark.parametrize("learned_similarity_dim", [0, 8])
@torch.no_grad()
def test_a_reader_joins_a_trained_network_without_changing_its_output(learned_similarity_dim: int) -> None:
    before = random_network(dataclasses.replace(TINY_FROZEN, learned_similarity_dim=learned_similarity_dim))
    reader = Reader(64, TINY_READER)
    after = with_reader(before, reader)
    assert torch.allclose(logits(before), logits(after), atol=1e-5)
    for name, value in reader.state_dict().items():
        assert torch.equal(after.state_dict()[f"reader.{name}"], value)


@torch.no_grad()
def test_a_reader_takes_the_place_of_the_learned_similarity() -> None:
    before = random_network(TINY_FROZEN)
    after = with_reader(before, Reader(64, TINY_READER), replaces_similarity=True)
    assert after.config.learned_similarity_dim == 0
    assert not any(name.startswith("likeness.") for name in after.state_dict())
    assert not torch.allclose(logits(before), logits(after), atol=1e-5)
    kept = before.similarity_channels + 4
    for name in ("similarity_in.fc1.weight", "similarity_out.fc1.weight"):
        assert torch.equal(after.state_dict()[name][:, :kept], before.state_dict()[name])
        assert not after.state_dict()[name][:, kept:].any()


@torch.no_grad()
def test_a_newer_reader_takes_the_place_of_an_older_one() -> None:
    first = with_reader(random_network(TINY_FROZEN), Reader(64, TINY_READER))
    newer = Reader(64, TINY_READER)
    second = with_reader(first, newer)
    assert second.config == first.config
    for name, value in newer.state_dict().items():
        assert torch.equal(second.state_dict()[f"reader.{name}"], value)


def read_of(reader: Reader) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    comparison = torch.nn.functional.normalize(torch.randn(2, 16, 64, generator=generator), dim=-1)
    tokens = reader.encode(comparison, (4, 4))
    labels = torch.rand(1, 16, 1, 3, generator=generator)
    clicks = torch.zeros(1, 1, 2, 16)
    clicks[..., 5] = 0.4
    frozen = PatchCosines.of(comparison[:1], comparison[1:])
    matched = reader.match(tokens[:1], tokens[1:], frozen, labels)
    return reader.read(tokens[:1], comparison[:1], matched, clicks, (4, 4)).logits


@torch.no_grad()
def test_a_grown_reader_answers_as_before_until_it_is_trained() -> None:
    before = Reader(64, dataclasses.replace(TINY_READER, affinity_heads=0)).eval()
    after = grown_reader(before, {"blocks": 2, "refine_blocks": 3, "affinity_heads": 2})
    assert (after.config.blocks, after.config.refine_blocks, after.config.affinity_heads) == (2, 3, 2)
    assert not after.training
    assert torch.allclose(read_of(before), read_of(after), atol=1e-6)
    for name, parameter in after.named_parameters():
        if "scale" in name:
            torch.nn.init.constant_(parameter, 0.3)
    assert not torch.allclose(read_of(before), read_of(after), atol=1e-3)  # the new layers are in use


def test_a_reader_of_the_shape_that_is_asked_for_stays_itself() -> None:
    reader = Reader(64, TINY_READER)
    assert grown_reader(reader, {"affinity_heads": 2}) is reader


@pytest.mark.parametrize("shape", [{"refine_blocks": 0}, {"affinity_heads": 3}])
def test_a_reader_does_not_become_smaller_or_another_one(shape: dict[str, int]) -> None:
    with pytest.raises(WeightsError, match="cannot become"):
        grown_reader(Reader(64, TINY_READER), shape)  # type: ignore[arg-type]
