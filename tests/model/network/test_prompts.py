"""What a reference says: pooling and prompts (RefCut eq. 6-7)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from model.network.prompts import PromptGenerator, ReferenceTokens, area_weights, masked_average

TOKENS, DIM = 20, 8


def reference(seed: int, *, positive: bool = True, negative: bool = True, batch: int = 1) -> ReferenceTokens:
    """Made-up tokens with soft masks; an absent mask is all zeros."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, TOKENS, DIM, generator=generator)
    masks = [torch.rand(batch, TOKENS, generator=generator) * present for present in (positive, negative)]
    return ReferenceTokens(tokens, masks[0], masks[1])


def generator_with_values(seed: int = 0, *, norm: bool = False) -> PromptGenerator:
    torch.manual_seed(seed)
    prompts = PromptGenerator(DIM, 6, 4, norm=norm)
    with torch.no_grad():
        for parameter in prompts.parameters():
            parameter.add_(torch.randn_like(parameter))
    return prompts


def close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("norm", [False, True])
def test_absent_masks_give_exactly_zero(norm: bool) -> None:
    prompt = generator_with_values(norm=norm)(reference(1, positive=False, negative=False))
    assert torch.equal(prompt, torch.zeros(1, 4))


def test_an_absent_negative_mask_leaves_the_positive_prompt_alone() -> None:
    prompts, given = generator_with_values(), reference(1, negative=False)
    assert torch.equal(prompts(given), prompts.positive(masked_average(given.tokens, given.positive)))


def test_permuting_tokens_inside_a_mask_changes_nothing() -> None:
    prompts, given = generator_with_values(), reference(2)
    positive = (given.positive > 0.5).float()
    inside = positive[0].nonzero()[:, 0]
    order = torch.arange(TOKENS)
    order[inside] = inside.roll(1)
    plain = prompts(ReferenceTokens(given.tokens, positive, torch.zeros_like(positive)))
    permuted = prompts(ReferenceTokens(given.tokens[:, order], positive, torch.zeros_like(positive)))
    assert not torch.equal(given.tokens, given.tokens[:, order])
    assert close(plain, permuted)


@pytest.mark.parametrize("scale", [1e-9, 0.01, 0.5, 1000.0])
def test_scaling_a_soft_mask_changes_nothing(scale: float) -> None:
    prompts, given = generator_with_values(), reference(3)
    scaled = ReferenceTokens(given.tokens, given.positive * scale, given.negative * scale)
    assert close(prompts(given), prompts(scaled))


def test_swapping_masks_and_networks_changes_nothing() -> None:
    prompts, given = generator_with_values(), reference(4)
    plain = prompts(given)
    prompts.positive, prompts.negative = prompts.negative, prompts.positive
    assert close(plain, prompts(ReferenceTokens(given.tokens, given.negative, given.positive)))


def test_several_references_are_pooled_jointly_by_area() -> None:
    first, second = reference(5), reference(6)
    joined = ReferenceTokens.join([first, second])
    areas = [r.positive.sum() for r in (first, second)]
    means = [masked_average(r.tokens, r.positive) for r in (first, second)]
    expected = (areas[0] * means[0] + areas[1] * means[1]) / (areas[0] + areas[1])
    assert close(masked_average(joined.tokens, joined.positive), expected)


def test_a_reference_joined_alone_is_itself() -> None:
    prompts, given = generator_with_values(), reference(7)
    assert torch.equal(prompts(ReferenceTokens.join([given])), prompts(given))


def test_close_ups_are_joined_and_a_reference_without_one_stands_for_itself() -> None:
    plain, near, other = (
        ReferenceTokens(torch.rand(1, 4, 8), torch.rand(1, 4), torch.rand(1, 4)) for _ in "abc"
    )
    close = dataclasses.replace(plain, close_up=near)
    joined = ReferenceTokens.join([close, other])
    assert joined.close_up is not None
    assert joined.from_nearby is joined.close_up
    assert joined.close_up.sources == (*near.sources, *other.sources)
    assert torch.equal(joined.close_up.tokens, torch.cat([near.tokens, other.tokens], dim=1))
    assert ReferenceTokens.join([plain, other]).close_up is None
    assert plain.from_nearby is plain


def test_nothing_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ReferenceTokens.join([])


def test_a_batch_with_and_without_masks_is_the_same_as_one_by_one() -> None:
    prompts = generator_with_values()
    given = [reference(seed, positive=bool(seed & 1), negative=bool(seed & 2)) for seed in range(4)]
    batch = ReferenceTokens(
        torch.cat([r.tokens for r in given]),
        torch.cat([r.positive for r in given]),
        torch.cat([r.negative for r in given]),
    )
    assert close(prompts(batch), torch.cat([prompts(r) for r in given]))


def test_absent_masks_have_finite_gradients() -> None:
    prompts, given = generator_with_values(), reference(8, positive=False, negative=False)
    tokens = given.tokens.requires_grad_()
    prompts(ReferenceTokens(tokens, given.positive, given.negative)).sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in prompts.parameters())
    assert tokens.grad is not None
    assert bool(tokens.grad.isfinite().all())


def test_untrained_prompts_say_so_and_are_zero() -> None:
    prompts = PromptGenerator(DIM, 6, 4, norm=False)
    assert not prompts.trained
    assert torch.equal(prompts(reference(9)), torch.zeros(1, 4))
    assert generator_with_values().trained


def test_a_mask_smaller_than_a_patch_does_not_vanish() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[0, 0, 37, 5] = 1
    weights = area_weights(mask, (4, 4))
    assert weights.sum() == pytest.approx(1 / 256)
    assert weights.argmax() == 2 * 4 + 0
