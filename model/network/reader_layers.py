"""Layers of the reader (`model.network.reader`) that know nothing of references, labels or clicks.

Shapes: B crops, K label sets read off each, N patches of a crop, C channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sine_positions(grid: tuple[int, int], width: int, device: torch.device) -> Tensor:
    """Sines and cosines of a patch's place on the grid, (1, N, width)."""
    rows, cols = (int(side) for side in grid)  # whole numbers while an exporter traces sizes as tensors, too
    down = (torch.arange(rows, device=device) / rows)[:, None].expand(rows, cols).reshape(-1)
    across = (torch.arange(cols, device=device) / cols)[None].expand(rows, cols).reshape(-1)
    steps = width // 4
    frequency = math.pi * 2 ** (torch.arange(steps, device=device) * (5 / steps))
    angles = torch.stack([across[:, None] * frequency, down[:, None] * frequency], dim=-1)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1).flatten(1)[None]


def _squared_distances(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Between patches, in patches, (N, N)."""
    rows, cols = torch.arange(grid[0], device=device), torch.arange(grid[1], device=device)
    places = torch.stack(torch.meshgrid(rows, cols, indexing="ij"), dim=-1).reshape(-1, 2).float()
    return (places[:, None] - places[None]).square().sum(dim=-1)


class Affinity(nn.Module):
    """How much each patch of a crop takes from each other one: what belongs to one piece, as the crop itself shows it.

    Args:
        width: Width of what the vectors are computed from.
        heads: Kinds of belonging together. They begin with different reaches, from one patch to the whole crop.
        dim: Width of a head's queries and keys.
    """

    def __init__(self, width: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.to_vectors = nn.Linear(width, 2 * heads * dim, bias=False)
        self.nearness = nn.Parameter(torch.linspace(-1.0, -5.0, heads))

    def vectors(self, x: Tensor) -> Tensor:
        """Queries and keys (B, N, 2 * heads * dim) of patches (B, N, width)."""
        found: Tensor = self.to_vectors(x)
        return found

    def forward(self, vectors: Tensor, grid: tuple[int, int]) -> Tensor:
        """Affinity (B, heads, N, N) of the patches of a grid; each row adds up to 1."""
        pairs = vectors.reshape(*vectors.shape[:2], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key = pairs.unbind(0)
        fall = F.softplus(self.nearness)[:, None, None] * _squared_distances(grid, vectors.device)
        affinity: Tensor = ((query * self.dim**-0.5) @ key.transpose(-1, -2) - fall).softmax(dim=-1)
        return affinity


class AffinityBlock(nn.Module):
    """Lets what is known of a patch reach the patches of the same piece.

    Only hidden channels are mixed: what the affinity was computed from does not reach the output. A new block changes
    nothing.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.value, self.proj = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, affinity: Tensor) -> Tensor:
        """Mix x (B * K, N, C) by the affinity (B, heads, N, N) of its crop; to the shape of x."""
        _, patches, width = x.shape
        value = self.value(self.norm(x)).reshape(len(affinity), -1, patches, self.heads, width // self.heads)
        mixed = affinity.to(value.dtype)[:, None] @ value.transpose(2, 3)
        out: Tensor = x + self.scale * self.proj(mixed.transpose(2, 3).reshape(x.shape))
        return out


class TransformerBlock(nn.Module):
    """Pre-norm transformer block with layer scale and dropout."""

    def __init__(self, width: int, heads: int, dropout: float, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.sharpness = (width // heads) ** -0.5
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, mlp_ratio * width), nn.Linear(mlp_ratio * width, width)
        self.scale1 = nn.Parameter(torch.full((width,), 0.3))
        self.scale2 = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        """Transform the patches (B, N, C) of each crop; to the same shape."""
        batch, patches, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, patches, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        # Plain attention: the fused kernel's backward pass is slow on a CPU.
        attention = ((query * self.sharpness) @ key.transpose(-1, -2)).softmax(dim=-1)
        mixed = (attention @ value).transpose(1, 2).reshape(batch, patches, width)
        x = x + self.scale1 * F.dropout(self.proj(mixed), self.dropout, self.training)
        return x + self.scale2 * F.dropout(
            self.fc2(F.gelu(self.fc1(self.norm2(x)))), self.dropout, self.training
        )


class ConvBlock(nn.Module):
    """ConvNeXt block on the grid of patches."""

    def __init__(self, width: int, mlp_ratio: int = 3, kernel: int = 7) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, mlp_ratio * width), nn.Linear(mlp_ratio * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Transform the patches (B, N, C) of a grid; to the same shape."""
        batch, _, width = x.shape
        spread = self.spread(x.transpose(1, 2).reshape(batch, width, *grid)).flatten(2).transpose(1, 2)
        out: Tensor = x + self.scale * self.fc2(F.gelu(self.fc1(self.norm(spread))))
        return out
