"""A block of the vision transformer: attention and an MLP, each after a normalisation, with or without layer scale.

Equations of "An Image is Worth 16x16 Words" (Dosovitskiy et al. 2021, eq. 2 and 3), and layer scale after "Going deeper
with Image Transformers" (Touvron et al. 2021, eq. 8). Tensor names are those of the published weights (SimpleClick,
DINOv2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MLP_RATIO = 4
NORM_EPSILON = 1e-6


class TransformerBlock(nn.Module):
    """Tokens (B, T, C) to tokens (B, T, C).

    Args:
        dim: Numbers per token, C.
        heads: Attention heads; they share the numbers of a token evenly.
        layer_scale: Scale what attention and MLP add, each number by a weight of its own.

    Raises:
        ValueError: If `dim` is not a multiple of `heads`.
    """

    def __init__(self, dim: int, heads: int, *, layer_scale: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.attn = Attention(dim, heads)
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.mlp = Mlp(dim)
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """Run the block."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Each token looks at all tokens. Arguments as of `TransformerBlock`.

    Attributes:
        fused: Use torch's fused kernel, which never holds the T x T weights.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} numbers per token cannot be shared evenly by {heads} heads")
        self.heads = heads
        self.fused = True
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        batch, count, dim = tokens.shape
        split = self.qkv(tokens).reshape(batch, count, 3, self.heads, dim // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            mixed = F.scaled_dot_product_attention(queries, keys, values)
        else:
            scaled = queries * queries.shape[-1] ** -0.5
            mixed = (scaled @ keys.transpose(-2, -1)).softmax(dim=-1) @ values
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, dim))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two layers on each token by itself, the hidden one `MLP_RATIO` times as wide."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, MLP_RATIO * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(MLP_RATIO * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return self.fc2(self.act(self.fc1(tokens)))  # type: ignore[no-any-return]


class LayerScale(nn.Module):
    """One weight per number of a token, 1 at the start."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return tokens * self.gamma


class PatchEmbed(nn.Module):
    """One linear map of the pixels of each patch.

    Args:
        patch_px: Side of a patch in pixels.
        dim: Numbers per token, C.
    """

    def __init__(self, patch_px: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_px, stride=patch_px)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised image (B, 3, H, W) to patch tokens (B, N, C), row by row."""
        return self.proj(image).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


def use_plain_attention(module: nn.Module, plain: bool = True) -> None:
    """Switch every attention layer of a module between plain softmax and the fused kernel.

    On a CPU the fused kernel's backward pass is slow: plain attention trains 2.8 times as fast at 257 tokens.
    """
    for layer in module.modules():
        if isinstance(layer, Attention):
            layer.fused = not plain
