"""Where does this image look like the reference, and where like the clicked places? Dense channels beside the prompts.

Not in the RefCut paper. A prompt says what to look for; these channels say, token by token, where it is. They are read
in the untouched comparison space, which is why they carry over to kinds of things that were never trained on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.network.prompts import ReferenceTokens, masked_average

REFERENCE_CHANNELS = 12
LEARNED_CHANNELS = 6
CLICK_CHANNELS = 4
NEAREST = 3
SHARPNESS = 20.0
"""The likeness to a set of patches counts the likest most: a soft maximum over cosines times this."""
INSIDE_SHARE = 0.5
"""A reference patch counts as inside a mask when the mask covers this share of the best covered patch's share."""


def reference_channels(target: Tensor, reference: ReferenceTokens) -> Tensor:
    """Likeness of target tokens (B, N, D) to a reference, (B, N, 12).

    For each sign: cosine to the pooled reference, mean cosine to the 3 nearest tokens inside the mask, and the z-scores
    of both over the image; then positive minus negative of the two cosines; then the two presence flags. Channels of an
    absent mask are zero.
    """
    target = F.normalize(target.float(), dim=-1)
    tokens = F.normalize(reference.tokens.float(), dim=-1)
    cosines = torch.bmm(target, tokens.transpose(1, 2))
    per_sign, flags = [], []
    for weights in (reference.positive, reference.negative):
        present = (weights.sum(dim=1) > 0).float()[:, None]
        pooled = F.normalize(masked_average(reference.tokens.float(), weights), dim=-1)
        to_pooled = torch.einsum("bnd,bd->bn", target, pooled)
        nearest = _nearest_inside(cosines, weights)
        channels = [to_pooled, _z_score(to_pooled), nearest, _z_score(nearest)]
        per_sign.append(torch.stack([channel * present for channel in channels], dim=-1))
        flags.append(present.expand(-1, target.shape[1]))
    positive, negative = per_sign
    both = (flags[0] * flags[1])[..., None]
    difference = (positive[..., [0, 2]] - negative[..., [0, 2]]) * both
    return torch.cat([positive, negative, difference, torch.stack(flags, dim=-1)], dim=-1)


def click_channels(target: Tensor, click_weights: Tensor) -> Tensor:
    """Likeness of target tokens (B, N, D) to the clicked places, (B, N, 4).

    click_weights: (B, 2, N) share of each patch covered by positive / negative click disks.
    Channels: cosine to the mean positively clicked token, to the negatively clicked, and the two presence flags.
    """
    target = F.normalize(target.float(), dim=-1)
    channels, flags = [], []
    for sign in (0, 1):
        weights = click_weights[:, sign]
        pooled = F.normalize(masked_average(target, weights), dim=-1)
        channels.append(torch.einsum("bnd,bd->bn", target, pooled))
        flags.append((weights.sum(dim=1) > 0).float()[:, None].expand_as(channels[-1]))
    return torch.stack(channels + flags, dim=-1)


def _nearest_inside(cosines: Tensor, weights: Tensor) -> Tensor:
    """Mean of the 3 largest cosines (B, N, M) among reference tokens inside the mask; zero where it is absent."""
    best = weights.amax(dim=1, keepdim=True)
    inside = (weights > INSIDE_SHARE * best) & (best > 0)
    masked = cosines.masked_fill(~inside[:, None], -1.0)
    top = masked.topk(min(NEAREST, masked.shape[-1]), dim=-1).values
    count = inside.sum(dim=1)[:, None, None]
    counted = torch.arange(top.shape[-1], device=top.device)[None, None] < count
    return (top * counted).sum(dim=-1) / counted.sum(dim=-1).clamp_min(1)


def _z_score(channel: Tensor) -> Tensor:
    """Standardised over the image (B, N)."""
    mean = channel.mean(dim=1, keepdim=True)
    return (channel - mean) / channel.std(dim=1, keepdim=True).clamp_min(1e-3)


class LearnedSimilarity(nn.Module):
    """Likeness in a space that is learned: what sets one part apart from another, where untouched features mostly tell
    one kind of surface from another. It stands beside `reference_channels`, which carry over to other kinds of things.
    """

    def __init__(self, comparison_dim: int, learned_similarity_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(comparison_dim, learned_similarity_dim, bias=False)

    def forward(self, target: Tensor, reference: ReferenceTokens) -> Tensor:
        """Of target tokens (B, N, D) to what the reference has inside its positive mask, inside its negative one, and
        outside both: each the cosine to the mean and to the likest tokens, (B, N, 6). Zero where there is no such place,
        and everywhere when neither mask says anything.
        """
        target = F.normalize(self.project(target.float()), dim=-1)
        tokens = F.normalize(self.project(reference.tokens.float()), dim=-1)
        cosines = torch.bmm(target, tokens.transpose(1, 2))
        positive, negative, outside = _shares(reference)
        channels = []
        for weights in (positive, negative, outside):
            present = (weights.sum(dim=1) > 0).float()[:, None]
            to_mean = torch.einsum("bnd,bd->bn", target, F.normalize(masked_average(tokens, weights), dim=-1))
            channels += [to_mean * present, _soft_maximum(cosines, weights) * present]
        return torch.stack(channels, dim=-1)


def _shares(reference: ReferenceTokens) -> tuple[Tensor, Tensor, Tensor]:
    """Of each patch, how much counts as inside the positive mask, inside the negative one, and outside both, (B, M).

    The patch that is covered best counts as a whole one. Without any mask all three are zero.
    """
    best = torch.maximum(reference.positive, reference.negative).amax(dim=1, keepdim=True)
    positive, negative = (
        weights / best.clamp_min(1e-12) for weights in (reference.positive, reference.negative)
    )
    return positive, negative, (1 - positive - negative).clamp_min(0) * (best > 0)


def _soft_maximum(cosines: Tensor, weights: Tensor) -> Tensor:
    """Soft maximum of cosines (B, N, M) over the reference tokens that weights (B, M) count, (B, N)."""
    counted = torch.log(weights.clamp_min(1e-12))[:, None]
    return torch.logsumexp(SHARPNESS * cosines + counted, dim=-1) / SHARPNESS


class SimilarityMlp(nn.Module):
    """Similarity channels (B, N, channels) to an addition to the tokens (B, N, C); starts at zero."""

    def __init__(self, channels: int, out_dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, out_dim)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, channels: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(channels)))  # type: ignore[no-any-return]
