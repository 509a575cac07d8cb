"""Similarity channels: where an image looks like the reference, and where like the clicked positions.

Not in the RefCut paper. The prompt (`model.network.prompts`) is one vector for the whole image: it says what to look
for. These channels say for every patch how well it matches, so that the click path also knows where to look.

    reference photograph + masks                this image
      |  frozen encoder                           |  frozen encoder
      v                                           v
    tokens (B, M, D), share of each patch       tokens (B, N, D)
    inside the positive / negative mask           |
      |                                           |
      +-------- cosine of every pair -------------+
                          |
                          v
    group      channels                                                              count
    reference  per mask: cosine to its mean, to its 3 nearest patches, z-scores       4 + 4
               positive minus negative (both cosines), whether each mask exists       2 + 2
    learned    cosine to mean and to nearest of: positive, negative, neither          6
    clicks     cosine to the clicked patches of each sign, whether there are any      2 + 2

The reference and click channels use the frozen features as they are, so they also work for kinds of objects that were
never trained on. The learned channels use a small projection that is trained, which separates parts that look alike.
All channels of a patch go through `SimilarityMlp` and are added to its token, before and after the click path.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.network.prompts import ReferenceTokens, chosen_patches, masked_average

REFERENCE_CHANNELS = 12
LEARNED_CHANNELS = 6
CLICK_CHANNELS = 4
NEAREST = 3
SHARPNESS = 20.0
"""Factor on the cosines in the soft maximum: the larger, the more the nearest patch counts."""
INSIDE_SHARE = 0.5
"""A patch counts as inside a mask if its covered share is more than this part of the largest covered share."""


@dataclass(frozen=True)
class PatchCosines:
    """Cosines between the patches of an image and those of a reference, computed once for everything that needs them.

    Attributes:
        target: Patches of the image, scaled to length 1, (B, N, D) float32.
        reference: Patches of the reference, likewise, (B, M, D).
        cosines: (B, M, N). Patches of the reference come first: the largest over them are found for many patches of the
            image at once.
    """

    target: Tensor
    reference: Tensor
    cosines: Tensor

    @staticmethod
    def of(target: Tensor, reference: Tensor) -> PatchCosines:
        """The cosines of an image (B, N, D) and a reference (B, M, D), of any scale; float32 also under autocast."""
        with torch.autocast(target.device.type, enabled=False):
            target, reference = F.normalize(target.float(), dim=-1), F.normalize(reference.float(), dim=-1)
            return PatchCosines(target, reference, torch.bmm(reference, target.transpose(1, 2)))


@dataclass(frozen=True)
class ReferenceEvidence:
    """What of a reference the patches of an image are compared with, in frozen features. It does not depend on the image.

    Attributes:
        means: Mean token of the positive and of the negative mask, (B, 2, D). Zero for an absent mask.
        numbers: Numbers of patches among those that are compared anyhow (`PatchCosines`), (B, K) int64.
        tokens: Further patches, (B, X, D). Together they hold those inside the masks.
        inside: (B, 2, K + X), 1 where such a patch is inside the positive or the negative mask, else 0.
    """

    means: Tensor
    numbers: Tensor
    tokens: Tensor
    inside: Tensor

    @staticmethod
    def of(reference: ReferenceTokens, count: int) -> ReferenceEvidence:
        """The evidence of a reference all of whose patches are compared, so that several references cost as much as one.

        Args:
            reference: Tokens and mask shares, (B, M, D) and (B, M).
            count: Patches to keep if there are more. Those inside the masks come first. If these are too many, evenly
                spaced ones are kept; a mask that needs less than half of the places leaves the rest to the other one.
        """
        shares = torch.stack([reference.positive, reference.negative], dim=1)
        best = shares.amax(dim=2, keepdim=True)
        inside = (shares > INSIDE_SHARE * best) & (best > 0)
        tokens = reference.tokens
        with torch.autocast(tokens.device.type, enabled=False):
            masks = (reference.positive, reference.negative)
            means = torch.stack([masked_average(tokens.float(), mask) for mask in masks], dim=1)
        numbers = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
        if tokens.shape[1] > count:
            kept = _spread(inside, count).any(dim=1)
            numbers = torch.argsort(kept.int(), dim=1, descending=True, stable=True)[:, :count]
            inside = torch.gather(inside, 2, numbers[:, None].expand(-1, 2, -1))
        return ReferenceEvidence(means, numbers, tokens[:, :0], inside.float())

    def beside(self, kept: Tensor, tokens: Tensor, multiple: int) -> ReferenceEvidence:
        """The same evidence where only some patches of the reference are compared anyhow.

        Args:
            kept: Numbers of these patches, (B, M').
            tokens: All patches of the reference, (B, M, D).
            multiple: The number of further patches is rounded up to a multiple of this, as far as there are so many.
        """
        place = kept.new_full(tokens.shape[:2], -1)
        place.scatter_(1, kept, torch.arange(kept.shape[1]).to(kept).expand_as(kept))
        known = torch.gather(place, 1, self.numbers)
        lacking = (known < 0) & (self.inside.amax(dim=1) > 0)
        count = min(-(-int(lacking.sum(dim=1).max()) // multiple) * multiple, lacking.shape[1])
        order = torch.argsort(lacking.int(), dim=1, descending=True, stable=True)[:, :count]
        added = torch.gather(self.inside * lacking[:, None], 2, order[:, None].expand(-1, 2, -1))
        return ReferenceEvidence(
            self.means,
            known.clamp_min(0),
            chosen_patches(tokens, torch.gather(self.numbers, 1, order)),
            torch.cat([self.inside * (known >= 0)[:, None], added], dim=2),
        )

    def without_unused(self, multiple: int) -> ReferenceEvidence:
        """The evidence without compared patches that are inside neither mask: these change no channel.

        Args:
            multiple: The number of others is rounded up to a multiple of this, as far as there are so many. At least
                `NEAREST` are kept.
        """
        count_compared = self.numbers.shape[1]
        compared, added = self.inside[:, :, :count_compared], self.inside[:, :, count_compared:]
        used = compared.amax(dim=1)
        most = max(int(used.sum(dim=1).max()), NEAREST)
        count = min(-(-most // multiple) * multiple, used.shape[1])
        order = torch.argsort(used, dim=1, descending=True, stable=True)[:, :count]
        inside = torch.gather(compared, 2, order[:, None].expand(-1, 2, -1))
        return ReferenceEvidence(
            self.means,
            torch.gather(self.numbers, 1, order),
            self.tokens,
            torch.cat([inside, added], dim=2),
        )


def reference_channels(compared: PatchCosines, evidence: ReferenceEvidence) -> Tensor:
    """Compare the patches of an image with a reference, in frozen features.

    For each mask: cosine to the mask's mean token, its z-score over the image, mean cosine to the 3 nearest tokens
    inside the mask, and its z-score. Then positive minus negative of the two cosines, and two flags: whether each
    mask exists. Channels of an absent mask are zero.

    Args:
        compared: N patches of the image and those of the reference that `evidence.numbers` counts.
        evidence: The reference, of the same batch.

    Returns:
        (B, N, 12), float32.
    """
    target, cosines = compared.target, chosen_patches(compared.cosines, evidence.numbers)
    if evidence.tokens.shape[1]:
        cosines = torch.cat([cosines, PatchCosines.of(target, evidence.tokens).cosines], dim=1)
    means = F.normalize(evidence.means.float(), dim=-1)
    per_sign, flags = [], []
    for sign in (0, 1):
        inside = evidence.inside[:, sign]
        present = inside.amax(dim=1)[:, None]
        to_mean = torch.einsum("bnd,bd->bn", target, means[:, sign])
        nearest = _nearest_inside(cosines, inside)
        channels = [to_mean, _z_score(to_mean), nearest, _z_score(nearest)]
        per_sign.append(torch.stack([channel * present for channel in channels], dim=-1))
        flags.append(present.expand(-1, target.shape[1]))
    positive, negative = per_sign
    both = (flags[0] * flags[1])[..., None]
    difference = (positive[..., [0, 2]] - negative[..., [0, 2]]) * both
    return torch.cat([positive, negative, difference, torch.stack(flags, dim=-1)], dim=-1)


def click_channels(target: Tensor, click_weights: Tensor) -> Tensor:
    """Compare the patches of an image with its clicked patches.

    Args:
        target: Tokens of the image, (B, N, D).
        click_weights: Share of each patch that positive and negative click disks cover, (B, 2, N).

    Returns:
        (B, N, 4): cosine to the mean positively clicked token, to the negatively clicked one, and for both whether
        there is a click. Channels of an absent sign are zero.
    """
    target = F.normalize(target.float(), dim=-1)
    channels, flags = [], []
    for sign in (0, 1):
        weights = click_weights[:, sign]
        pooled = F.normalize(masked_average(target, weights), dim=-1)
        channels.append(torch.einsum("bnd,bd->bn", target, pooled))
        flags.append((weights.sum(dim=1) > 0).float()[:, None].expand_as(channels[-1]))
    return torch.stack(channels + flags, dim=-1)


def _spread(inside: Tensor, count: int) -> Tensor:
    """At most `count` of the patches inside either mask, evenly spaced: bool (B, 2, M), as `inside`."""
    found = inside.sum(dim=2, keepdim=True)
    places = torch.maximum(count - found.flip(1), torch.full_like(found, count // 2))
    step = (places.double() / found.clamp_min(1)).clamp(max=1.0) * (1 + 1e-9)
    number = inside.cumsum(dim=2)
    return inside & (torch.floor(number * step) > torch.floor((number - 1) * step))


def _nearest_inside(cosines: Tensor, inside: Tensor) -> Tensor:
    """Mean of the 3 largest cosines (B, M, N) among reference tokens inside the mask (B, M); zero where it is absent."""
    masked = torch.where(inside[:, :, None] > 0, cosines, -1.0)
    top = masked.topk(min(NEAREST, masked.shape[1]), dim=1).values
    count = inside.sum(dim=1)[:, None, None]
    counted = (torch.arange(top.shape[1], device=top.device)[None, :, None] < count).float()
    return (top * counted).sum(dim=1) / counted.sum(dim=1).clamp_min(1)


def _z_score(channel: Tensor) -> Tensor:
    """Standardised over the image (B, N)."""
    mean = channel.mean(dim=1, keepdim=True)
    return (channel - mean) / channel.std(dim=1, keepdim=True).clamp_min(1e-3)


class LearnedSimilarity(nn.Module):
    """Similarity in a learned space.

    Frozen features mostly separate one kind of surface from another. This projection is trained to separate one part from
    another. It adds to `reference_channels`, which also work for kinds of objects that were never trained on.

    Args:
        comparison_dim: Width of the frozen features.
        learned_similarity_dim: Width of the learned space.
    """

    def __init__(self, comparison_dim: int, learned_similarity_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(comparison_dim, learned_similarity_dim, bias=False)

    def forward(self, target: Tensor, reference: ReferenceTokens) -> Tensor:
        """Compare the patches of an image with three regions of a reference: positive mask, negative mask, and neither.

        Args:
            target: Tokens of the image, (B, N, D).
            reference: Tokens and mask shares of the reference, of the same batch.

        Returns:
            (B, N, 6): for each region the cosine to its mean token and a soft maximum of the cosines to its tokens.
            Zero for an empty region, and everywhere if the reference has no mask.
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
    """Share of each patch (B, M) inside the positive mask, inside the negative one, and outside both.

    Shares are relative to the patch that is covered most. Without any mask all three are zero.
    """
    best = torch.maximum(reference.positive, reference.negative).amax(dim=1, keepdim=True)
    positive, negative = (
        weights / best.clamp_min(1e-12) for weights in (reference.positive, reference.negative)
    )
    return positive, negative, (1 - positive - negative).clamp_min(0) * (best > 0)


def _soft_maximum(cosines: Tensor, weights: Tensor) -> Tensor:
    """Soft maximum of cosines (B, N, M) over reference tokens with weights (B, M), (B, N)."""
    counted = torch.log(weights.clamp_min(1e-12))[:, None]
    return torch.logsumexp(SHARPNESS * cosines + counted, dim=-1) / SHARPNESS


class SimilarityMlp(nn.Module):
    """Turns similarity channels into an addition to the tokens. It starts at zero: an untrained one changes nothing.

    Args:
        channels: Number of similarity channels.
        out_dim: Width of the tokens.
        hidden: Width of the hidden layer.
    """

    def __init__(self, channels: int, out_dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, out_dim)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, channels: Tensor) -> Tensor:
        """Channels (B, N, `channels`) to what is added to the tokens, (B, N, `out_dim`)."""
        return self.fc2(F.gelu(self.fc1(channels)))  # type: ignore[no-any-return]
