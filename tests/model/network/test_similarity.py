"""Channels that say where an image looks like a reference."""

from __future__ import annotations

import pytest
import torch

from model.network.prompts import ReferenceTokens
from model.network.similarity import (
    LEARNED_CHANNELS,
    NEAREST,
    LearnedSimilarity,
    PatchCosines,
    ReferenceEvidence,
    reference_channels,
)

PATCHES = 12
IN_MEAN, IN_NEAREST, OUT_MEAN, OUT_NEAREST, REST_MEAN, REST_NEAREST = range(LEARNED_CHANNELS)


def three_surfaces() -> torch.Tensor:
    """Tokens (1, 12, 3): four patches each of three kinds."""
    return torch.eye(3).repeat_interleave(PATCHES // 3, dim=0)[None]


def weights(kind: int | None) -> torch.Tensor:
    """(1, 12): one kind's patches."""
    chosen = torch.zeros(1, PATCHES)
    if kind is not None:
        chosen[:, 4 * kind : 4 * kind + 4] = 1
    return chosen


def identity_similarity() -> LearnedSimilarity:
    similarity = LearnedSimilarity(3, 3)
    with torch.no_grad():
        similarity.project.weight.copy_(torch.eye(3))
    return similarity


@torch.no_grad()
def channels(positive: int | None, negative: int | None) -> torch.Tensor:
    """(3, 6): of one patch of each kind."""
    reference = ReferenceTokens(three_surfaces(), weights(positive), weights(negative))
    return identity_similarity()(three_surfaces(), reference)[0, ::4]


def test_each_patch_is_most_similar_to_the_region_of_the_reference_that_shows_its_kind() -> None:
    meant, kept_out, neither = channels(positive=0, negative=1)
    assert meant[[IN_MEAN, IN_NEAREST]].min() > 0.99 > 0.2 > meant[[OUT_MEAN, OUT_NEAREST, REST_MEAN]].max()
    assert kept_out[[OUT_MEAN, OUT_NEAREST]].min() > 0.99 > 0.2 > kept_out[[IN_MEAN, IN_NEAREST]].max()
    assert neither[[REST_MEAN, REST_NEAREST]].min() > 0.99 > 0.2 > neither[[IN_MEAN, OUT_MEAN]].max()


def test_an_absent_mask_has_channels_of_zero() -> None:
    assert not channels(positive=0, negative=None)[:, [OUT_MEAN, OUT_NEAREST]].any()
    assert not channels(positive=None, negative=1)[:, [IN_MEAN, IN_NEAREST]].any()


def test_without_any_mask_there_is_no_rest_either() -> None:
    assert not channels(positive=None, negative=None).any()


def test_one_similar_patch_among_others_is_found_by_the_nearest_and_hidden_in_the_mean() -> None:
    mixed = weights(0)
    mixed[:, 4:] = 1
    reference = ReferenceTokens(three_surfaces(), mixed, weights(None))
    with torch.no_grad():
        first = identity_similarity()(three_surfaces(), reference)[0, 0]
    assert first[IN_NEAREST] > 0.99 > 0.7 > first[IN_MEAN]


def references(*inside: int) -> tuple[torch.Tensor, ReferenceTokens]:
    """12 patches of an image, and a reference for each number: 12 patches, of which so many are inside its masks.

    The first patches are inside the positive mask, the last ones inside the negative mask.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for count in inside:
        positive, negative = torch.zeros(1, PATCHES), torch.zeros(1, PATCHES)
        positive[:, :count], negative[:, PATCHES - count :] = 1, 1
        tokens = torch.randn(1, PATCHES, 8, generator=generator)
        found.append(ReferenceTokens(tokens, positive, negative))
    return torch.randn(1, PATCHES, 8, generator=generator), ReferenceTokens.join(found)


def channels_of(
    target: torch.Tensor, reference: ReferenceTokens, evidence: ReferenceEvidence
) -> torch.Tensor:
    return reference_channels(PatchCosines.of(target, reference.tokens), evidence)


def compared(target: torch.Tensor, reference: ReferenceTokens, count: int) -> torch.Tensor:
    return channels_of(target, reference, ReferenceEvidence.of(reference, count))


def test_patches_outside_the_masks_of_several_references_are_left_out_without_a_change() -> None:
    target, reference = references(1, 2, 3)
    assert ReferenceEvidence.of(reference, PATCHES).numbers.shape == (1, PATCHES)
    expected = compared(target, reference, 3 * PATCHES)
    assert expected.abs().amax(dim=1).min() > 0.1
    torch.testing.assert_close(compared(target, reference, PATCHES), expected)


def test_of_too_many_patches_inside_the_masks_those_that_are_kept_are_evenly_spaced() -> None:
    _, reference = references(6, 6, 6, 6)
    evidence = ReferenceEvidence.of(reference, PATCHES)
    for sign, first in ((0, 0), (1, 6)):
        kept = reference.tokens[0, evidence.numbers[0, evidence.inside[0, sign] > 0]]
        of_each = [
            sum(bool((kept == token).all(dim=1).any()) for token in part)
            for part in reference.tokens[0].split(PATCHES)
        ]
        assert of_each == [1, 2, 1, 2], f"sign {sign}"
        assert not (kept == reference.tokens[0, (first + 6) % PATCHES]).all(dim=1).any()


def test_a_small_mask_keeps_all_of_its_patches_beside_a_large_one() -> None:
    _, reference = references(*[12] * 4)
    reference.negative[:] = 0
    reference.negative[:, 5] = 1
    reference.positive[:, 5] = 0
    evidence = ReferenceEvidence.of(reference, PATCHES)
    assert evidence.inside[0].sum(dim=1).tolist() == [11, 1]
    assert evidence.numbers[0, evidence.inside[0, 1] > 0].tolist() == [5]


def test_unused_evidence_is_left_out_without_a_change() -> None:
    target, reference = references(1, 2)
    evidence = ReferenceEvidence.of(reference, 2 * PATCHES)
    for multiple, count in ((1, 6), (4, 8), (100, 2 * PATCHES)):
        smaller = evidence.without_unused(multiple)
        assert smaller.numbers.shape == (1, count)
        assert smaller.inside.sum(dim=2).tolist() == [[3, 3]]
        expected = channels_of(target, reference, evidence)
        torch.testing.assert_close(channels_of(target, reference, smaller), expected)


def test_evidence_of_a_reference_without_masks_keeps_as_many_patches_as_are_compared() -> None:
    target, reference = references(0)
    smaller = ReferenceEvidence.of(reference, PATCHES).without_unused(1)
    assert smaller.numbers.shape == (1, NEAREST)
    assert not channels_of(target, reference, smaller).any()


@pytest.mark.parametrize(("multiple", "further"), [(1, 6), (4, 8), (100, PATCHES)])
def test_evidence_beside_other_patches_changes_no_channel(multiple: int, further: int) -> None:
    target, reference = references(2, 3)
    evidence = ReferenceEvidence.of(reference, PATCHES)
    kept = torch.tensor([[1, 0, 11, 13, 4]])
    beside = evidence.beside(kept, reference.tokens, multiple)
    assert beside.tokens.shape[1] == further
    assert beside.inside.sum(dim=2).tolist() == evidence.inside.sum(dim=2).tolist() == [[5, 5]]
    expected = channels_of(target, reference, evidence)
    compared = PatchCosines.of(target, reference.tokens[:, kept[0]])
    for one in (beside, beside.without_unused(1)):
        torch.testing.assert_close(reference_channels(compared, one), expected)


def test_evidence_that_is_compared_anyhow_adds_no_patch() -> None:
    _, reference = references(2)
    beside = ReferenceEvidence.of(reference, PATCHES).beside(
        torch.tensor([[11, 10, 5, 1, 0]]), reference.tokens, 64
    )
    assert beside.tokens.shape == (1, 0, 8)
    assert beside.without_unused(1).numbers.tolist() == [[4, 3, 1, 0]]


def test_cosines_are_those_of_every_pair_whatever_the_scale_and_the_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    target, reference = (torch.randn(2, count, 8, generator=generator) for count in (5, 3))
    with torch.autocast("cpu", torch.bfloat16):
        compared = PatchCosines.of(3 * target, reference / 7)
    expected = torch.cosine_similarity(reference[:, :, None], target[:, None], dim=-1)
    torch.testing.assert_close(compared.cosines, expected)
