"""The network as a whole: what a reference may and may not change."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from model.network.encoder import use_plain_attention
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from tests.support.synthetic import TINY_CONFIGS, TINY_SIMPLECLICK, random_network

BOTH = pytest.mark.parametrize("kind", sorted(TINY_CONFIGS))


def picture(network: RefCut, seed: int, batch: int = 1) -> Tensor:
    size = network.config.network_px
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def coords(network: RefCut, seed: int, batch: int = 1) -> Tensor:
    size = network.config.network_px
    maps = torch.zeros(batch, network.config.click_map_channels, size, size)
    maps[:, 0] = torch.rand(batch, size, size, generator=torch.Generator().manual_seed(seed))
    maps[:, 1, 10:20, 15:25] = 1
    maps[:, 2, 30:40, 5:15] = 1
    return maps


def box(network: RefCut, top: int, left: int, side: int) -> Tensor:
    size = network.config.network_px
    mask = torch.zeros(1, 1, size, size)
    mask[..., top : top + side, left : left + side] = 1
    return mask


@torch.no_grad()
def logits(network: RefCut, reference: ReferenceTokens | None, seed: int = 0) -> Tensor:
    features = network.encode_image(picture(network, seed))
    prepared = None if reference is None else network.prepare_reference(features, reference)
    return network.segment(features, coords(network, seed), prepared).logits


@torch.no_grad()
def encoded(network: RefCut, seed: int, positive: Tensor | None, negative: Tensor | None) -> ReferenceTokens:
    return network.encode_reference(picture(network, seed), positive, negative)


@BOTH
def test_absent_and_empty_masks_are_no_reference_bit_for_bit(kind: str) -> None:
    network = random_network(TINY_CONFIGS[kind])
    empty = torch.zeros_like(box(network, 0, 0, 1))
    plain = logits(network, None)
    assert torch.equal(logits(network, encoded(network, 1, None, None)), plain)
    assert torch.equal(logits(network, encoded(network, 1, empty, empty)), plain)


@BOTH
def test_a_reference_matters_and_each_mask_does(kind: str) -> None:
    network = random_network(TINY_CONFIGS[kind])
    positive, negative = box(network, 0, 0, 20), box(network, 30, 30, 20)
    results = [
        logits(network, reference)
        for reference in (
            None,
            encoded(network, 1, positive, None),
            encoded(network, 1, None, negative),
            encoded(network, 1, positive, negative),
        )
    ]
    for number, result in enumerate(results):
        assert all(not torch.allclose(result, other, atol=1e-4) for other in results[:number])


def test_untrained_prompts_are_simpleclick_bit_for_bit() -> None:
    torch.manual_seed(0)
    network = RefCut(TINY_SIMPLECLICK).eval()
    given = encoded(network, 1, box(network, 0, 0, 20), box(network, 30, 30, 20))
    assert torch.equal(logits(network, given), logits(network, None))


@BOTH
def test_permuting_the_tokens_of_a_reference_changes_nothing(kind: str) -> None:
    network = random_network(TINY_CONFIGS[kind])
    given = encoded(network, 1, box(network, 0, 0, 40), box(network, 40, 40, 12))
    order = torch.randperm(given.tokens.shape[1], generator=torch.Generator().manual_seed(0))
    reader = None if given.reader is None else given.reader[:, order]
    permuted = ReferenceTokens(
        given.tokens[:, order], given.positive[:, order], given.negative[:, order], reader
    )
    assert torch.allclose(logits(network, given), logits(network, permuted), atol=1e-4)


@BOTH
def test_scaling_soft_masks_changes_nothing(kind: str) -> None:
    network = random_network(TINY_CONFIGS[kind])
    given = encoded(network, 1, box(network, 3, 3, 21), box(network, 33, 30, 12))
    scaled = dataclasses.replace(given, positive=given.positive * 0.125, negative=given.negative * 0.125)
    assert torch.allclose(logits(network, given), logits(network, scaled), atol=1e-4)


@BOTH
def test_the_positive_mask_wins_where_masks_overlap(kind: str) -> None:
    network = random_network(TINY_CONFIGS[kind])
    positive, negative = box(network, 0, 0, 20), box(network, 30, 30, 20)
    overlapping = encoded(network, 1, positive, torch.maximum(positive, negative))
    assert torch.equal(logits(network, overlapping), logits(network, encoded(network, 1, positive, negative)))


@BOTH
def test_a_batch_with_and_without_masks_is_the_same_as_one_by_one(kind: str) -> None:
    network = random_network(TINY_CONFIGS[kind])
    positive, negative = box(network, 0, 0, 20), box(network, 30, 30, 20)
    given = [
        encoded(network, seed, positive if seed & 1 else None, negative if seed & 2 else None)
        for seed in range(4)
    ]
    joined = ReferenceTokens(
        torch.cat([r.tokens for r in given]),
        torch.cat([r.positive for r in given]),
        torch.cat([r.negative for r in given]),
        None if given[0].reader is None else torch.cat([r.reader for r in given if r.reader is not None]),
    )
    with torch.no_grad():
        features = network.encode_image(torch.cat([picture(network, seed) for seed in range(4)]))
        prepared = network.prepare_reference(features, joined)
        clicks = torch.cat([coords(network, seed) for seed in range(4)])
        together = network.segment(features, clicks, prepared).logits
    apart = torch.cat([logits(network, reference, seed) for seed, reference in enumerate(given)])
    assert torch.allclose(together, apart, atol=1e-4)


@BOTH
def test_a_cached_prompt_is_a_fresh_one(kind: str) -> None:
    network = random_network(TINY_CONFIGS[kind])
    masks = box(network, 0, 0, 20), box(network, 30, 30, 20)
    cached = encoded(network, 1, *masks)
    first = logits(network, cached)
    logits(network, encoded(network, 2, *masks), seed=5)
    assert torch.equal(logits(network, cached), first)
    assert torch.equal(logits(network, encoded(network, 1, *masks)), first)


@BOTH
def test_plain_and_fused_attention_agree(kind: str) -> None:
    network = random_network(TINY_CONFIGS[kind])
    fused = logits(network, None)
    use_plain_attention(network)
    assert torch.allclose(logits(network, None), fused, atol=1e-4)


@BOTH
def test_gradients_are_finite_with_and_without_a_reference(kind: str) -> None:
    network = random_network(TINY_CONFIGS[kind])
    for masks in ((None, None), (box(network, 0, 0, 20), None)):
        network.zero_grad()
        features = network.encode_image(picture(network, 0))
        reference = network.encode_reference(picture(network, 1), *masks)
        network.segment(
            features, coords(network, 0), network.prepare_reference(features, reference)
        ).logits.sum().backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert gradients
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@BOTH
def test_sizes_that_do_not_fit_the_patches_are_refused(kind: str) -> None:
    network = random_network(TINY_CONFIGS[kind])
    with pytest.raises(ValueError, match="not a multiple of the patch"):
        network.encode_image(torch.zeros(1, 3, network.config.network_px + 1, network.config.network_px))


def test_a_grid_that_cannot_be_cut_into_windows_is_refused() -> None:
    network = random_network(TINY_SIMPLECLICK)
    with pytest.raises(ValueError, match="windows"):
        network.segment(network.encode_image(torch.zeros(1, 3, 464, 464)), torch.zeros(1, 3, 464, 464))
