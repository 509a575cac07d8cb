"""Channels that say where an image looks like a reference."""

from __future__ import annotations

import torch

from model.network.prompts import ReferenceTokens
from model.network.similarity import LEARNED_CHANNELS, LearnedSimilarity

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
