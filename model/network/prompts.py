"""A reference as the network sees it, and its prompt: masked average pooling and two small MLPs (RefCut, eq. 6 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ReferenceTokens:
    """A reference as the network sees it: a value that can be cached, sent to another process, and joined with others.

    `RefCutPredictor.encode_reference` makes one, `RefCutPredictor.set_reference` takes one.

    Attributes:
        tokens: Features of the reference's patches, (B, M, D).
        positive: Share of each patch inside the positive mask, 0..1, (B, M). All zeros: there is no such mask.
        negative: Share of each patch inside the negative mask, 0..1, (B, M). All zeros: there is no such mask.
        reader: The patches as `model.network.reader` matches them, (B, M, E). None for a network without a reader.
        sources: A unique name for each reference that was encoded; joined ones have the names of all, in their order.
            Equal names mean equal tokens and masks.
        close_up: The same reference, read from a crop around its positive mask: what a crop of an image is compared
            with, because both then have the same scale. None if there is none, and the reference itself is used.

    Example:
        >>> import torch
        >>> from model import ReferenceTokens
        >>> def reference(patches: int) -> ReferenceTokens:
        ...     return ReferenceTokens(torch.ones(1, patches, 8), torch.ones(1, patches), torch.zeros(1, patches))
        >>> ReferenceTokens.join([reference(9), reference(4)]).tokens.shape
        torch.Size([1, 13, 8])
    """

    tokens: Tensor
    positive: Tensor
    negative: Tensor
    reader: Tensor | None = None
    sources: tuple[str, ...] = field(default_factory=lambda: (uuid4().hex,))
    close_up: ReferenceTokens | None = None

    @staticmethod
    def join(references: Sequence[ReferenceTokens]) -> ReferenceTokens:
        """Join several references of one label into one, whose tokens are pooled together.

        Larger masks weigh more, because more tokens belong to them. A single one is returned as it is.

        Args:
            references: At least one, all of one batch size and width.

        Raises:
            ValueError: If there is none.
        """
        if not references:
            raise ValueError("join needs at least one reference")
        if len(references) == 1:
            return references[0]
        encoded = [r.reader for r in references if r.reader is not None]
        close_up = None
        if any(r.close_up is not None for r in references):
            close_up = ReferenceTokens.join([r.from_nearby for r in references])
        return ReferenceTokens(
            torch.cat([r.tokens for r in references], dim=1),
            torch.cat([r.positive for r in references], dim=1),
            torch.cat([r.negative for r in references], dim=1),
            torch.cat(encoded, dim=1) if len(encoded) == len(references) else None,
            tuple(name for r in references for name in r.sources),
            close_up,
        )

    @property
    def from_nearby(self) -> ReferenceTokens:
        """What a crop of an image is compared with: the close-up, or the reference itself if it has none."""
        return self if self.close_up is None else self.close_up

    def repeated(self, index: Tensor) -> ReferenceTokens:
        """The rows `index` of the batch in that order, without the close-up; a row may come more than once."""
        reader = None if self.reader is None else self.reader[index]
        return ReferenceTokens(self.tokens[index], self.positive[index], self.negative[index], reader)


def area_weights(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Share of each patch that a mask covers.

    Shares and not the nearest pixel: a part smaller than a patch must not disappear.

    Args:
        mask: Mask (B, 1, H, W) in 0..1.
        grid: Rows and columns of patches.

    Returns:
        (B, N) in 0..1, patches in row-major order.
    """
    return F.adaptive_avg_pool2d(mask.float(), grid).flatten(1)


def reference_tokens(
    tokens: Tensor,
    positive: Tensor | None,
    negative: Tensor | None,
    grid: tuple[int, int],
    reader: Tensor | None = None,
) -> ReferenceTokens:
    """Join the tokens of an encoded image with its masks.

    Args:
        tokens: (B, N, D).
        positive: Mask (B, 1, H, W) in 0..1; None means no mask, which becomes weights of zero.
        negative: Likewise. Pixels of the positive mask are taken out of it.
        grid: Rows and columns of patches.
        reader: The same patches as the reader matches them; None for a network without a reader.
    """
    absent = tokens.new_zeros(tokens.shape[:2], dtype=torch.float32)
    if negative is not None and positive is not None:
        negative = negative * (1 - positive)
    return ReferenceTokens(
        tokens,
        absent if positive is None else area_weights(positive, grid),
        absent if negative is None else area_weights(negative, grid),
        reader,
    )


def chosen_patches(values: Tensor, numbers: Tensor) -> Tensor:
    """The values of some patches.

    Args:
        values: (B, M, C).
        numbers: Numbers of patches (B, K), each below M.

    Returns:
        (B, K, C).
    """
    batch = torch.arange(len(numbers), device=numbers.device)[:, None]
    return values[batch, numbers]


def masked_average(tokens: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of tokens (RefCut, eq. 6).

    Args:
        tokens: (B, M, D).
        weights: (B, M), not negative.

    Returns:
        (B, D); exactly zero where all weights are zero.
    """
    total = weights.sum(dim=1, keepdim=True)
    mean = torch.bmm(weights[:, None].to(tokens.dtype), tokens)[:, 0] / torch.where(total > 0, total, 1).to(
        tokens.dtype
    )
    return mean * (total > 0).to(tokens.dtype)


class PromptMlp(nn.Module):
    """Two linear layers from a pooled reference to a vector that is added to every token (RefCut, eq. 7).

    The last layer starts at zero: before any training the network is exactly SimpleClick.

    Args:
        in_dim: Width of the pooled reference.
        hidden_dim: Width of the hidden layer.
        out_dim: Width of the tokens.
        norm: Whether the pooled reference is normalised first.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim) if norm else nn.Identity()
        self.fc1 = nn.Linear(in_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, out_dim)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled reference (B, `in_dim`) to (B, `out_dim`)."""
        return self.fc2(F.gelu(self.fc1(self.norm(pooled))))  # type: ignore[no-any-return]


class PromptGenerator(nn.Module):
    """Positive and negative prompt of a reference. An absent mask gives exactly zero, not the MLP's output for zero.

    Args:
        in_dim: Width of the reference's tokens.
        hidden_dim: Width of the hidden layers.
        out_dim: Width of the network's tokens.
        norm: Whether pooled references are normalised first.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, *, norm: bool) -> None:
        super().__init__()
        self.positive = PromptMlp(in_dim, hidden_dim, out_dim, norm=norm)
        self.negative = PromptMlp(in_dim, hidden_dim, out_dim, norm=norm)

    @property
    def trained(self) -> bool:
        """Whether a reference changes anything. Untrained prompts are zero, and the network is SimpleClick."""
        return any(bool(mlp.fc2.weight.any() or mlp.fc2.bias.any()) for mlp in (self.positive, self.negative))

    def forward(self, reference: ReferenceTokens) -> Tensor:
        """Sum of both prompts, (B, C): what RefCut's eq. 5 adds to every token."""
        prompts = []
        for mlp, weights in ((self.positive, reference.positive), (self.negative, reference.negative)):
            present = (weights.sum(dim=1, keepdim=True) > 0).to(reference.tokens.dtype)
            prompts.append(mlp(masked_average(reference.tokens, weights)) * present)
        return torch.stack(prompts).sum(dim=0)
