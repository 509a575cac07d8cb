"""What a label means, as vectors: masked average pooling over the reference and two small MLPs (RefCut eq. 6-7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ReferenceTokens:
    """A reference as the network sees it: a value that can be cached, sent and joined with others.

    tokens: (B, M, D) features of the reference's patches.
    positive, negative: (B, M) share of each patch (0..1) inside the positive / negative mask. All zeros = absent.
    """

    tokens: Tensor
    positive: Tensor
    negative: Tensor

    @staticmethod
    def join(references: Sequence[ReferenceTokens]) -> ReferenceTokens:
        """Several references of one label, pooled jointly: larger masks weigh more, as more tokens speak for them."""
        if not references:
            raise ValueError("join needs at least one reference")
        return ReferenceTokens(
            torch.cat([r.tokens for r in references], dim=1),
            torch.cat([r.positive for r in references], dim=1),
            torch.cat([r.negative for r in references], dim=1),
        )

    def repeated(self, index: Tensor) -> ReferenceTokens:
        """Rows `index` (any length) of the batch."""
        return ReferenceTokens(self.tokens[index], self.positive[index], self.negative[index])


def area_weights(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mask (B, 1, H, W) in 0..1 to the share of each patch that it covers, (B, N).

    Area, not nearest: a part smaller than a patch must not vanish.
    """
    return F.adaptive_avg_pool2d(mask.float(), grid).flatten(1)


def masked_average(tokens: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of tokens (B, M, D) under weights (B, M); exactly zero where all weights are zero (eq. 6)."""
    total = weights.sum(dim=1, keepdim=True)
    mean = torch.bmm(weights[:, None].to(tokens.dtype), tokens)[:, 0] / torch.where(total > 0, total, 1).to(
        tokens.dtype
    )
    return mean * (total > 0).to(tokens.dtype)


class PromptMlp(nn.Module):
    """Two linear layers from a pooled reference to a vector that is added to every token (eq. 7).

    The last layer starts at zero: before any training the network is exactly SimpleClick.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim) if norm else nn.Identity()
        self.fc1 = nn.Linear(in_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, out_dim)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(pooled))))  # type: ignore[no-any-return]


class PromptGenerator(nn.Module):
    """Positive and negative prompt of a reference; an absent mask gives exactly zero, never MLP(0)."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, *, norm: bool) -> None:
        super().__init__()
        self.positive = PromptMlp(in_dim, hidden_dim, out_dim, norm=norm)
        self.negative = PromptMlp(in_dim, hidden_dim, out_dim, norm=norm)

    @property
    def trained(self) -> bool:
        """Whether any reference makes a difference: untrained prompts are zero, and the network is SimpleClick."""
        return any(bool(mlp.fc2.weight.any() or mlp.fc2.bias.any()) for mlp in (self.positive, self.negative))

    def forward(self, reference: ReferenceTokens) -> Tensor:
        """The sum of both prompts, (B, C): what eq. 5 adds to every token."""
        prompts = []
        for mlp, weights in ((self.positive, reference.positive), (self.negative, reference.negative)):
            present = (weights.sum(dim=1, keepdim=True) > 0).to(reference.tokens.dtype)
            prompts.append(mlp(masked_average(reference.tokens, weights)) * present)
        return torch.stack(prompts).sum(dim=0)
