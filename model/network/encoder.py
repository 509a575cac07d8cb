"""The plain vision transformer: patches, positions, and blocks with or without windows.

Layout and arithmetic follow SimpleClick's plain-ViT backbone (isegm/model/modeling/models_vit.py) and, with a class token
and layer scale, DINOv2. The blocks are timm's.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.network.config import NetworkConfig
from model.network.timm_layers import Block, LayerNorm, PatchEmbed

Grid = tuple[int, int]
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def normalise(image: Tensor) -> Tensor:
    """RGB image (B, 3, H, W) in 0..1 to the value range that the encoders were trained with."""
    mean = image.new_tensor(IMAGE_MEAN)[:, None, None]
    std = image.new_tensor(IMAGE_STD)[:, None, None]
    return (image - mean) / std


def make_block(config: NetworkConfig) -> Block:
    """One pre-norm transformer block in the shape of `config`, with fresh weights."""
    return Block(
        dim=config.embed_dim,
        num_heads=config.heads,
        qkv_bias=True,
        init_values=1.0 if config.layer_scale else None,
        norm_layer=partial(LayerNorm, eps=1e-6),  # type: ignore[arg-type]
    )


class Encoder(nn.Module):
    """Image to tokens. Its tensor names are SimpleClick's (`backbone.*`) and timm's.

    Args:
        config: Shape of the network.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(
            img_size=None, patch_size=config.patch_px, in_chans=3, embed_dim=config.embed_dim
        )
        if config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.position_grid**2, config.embed_dim))
        self.blocks = nn.ModuleList(make_block(config) for _ in range(config.depth))

    def grid_of(self, image: Tensor) -> Grid:
        """Rows and columns of patches of an image.

        Args:
            image: (B, 3, H, W).

        Raises:
            ValueError: If H or W is not a multiple of the patch.
        """
        height, width = image.shape[-2:]
        patch = self.config.patch_px
        if height % patch or width % patch:
            raise ValueError(f"image of {height} x {width} px is not a multiple of the patch of {patch} px")
        return height // patch, width // patch

    def embed_patches(self, image: Tensor) -> Tensor:
        """Normalised image (B, 3, H, W) to patch tokens (B, N, C), without positions."""
        return self.patch_embed(image)  # type: ignore[no-any-return]

    def add_positions(self, patches: Tensor, grid: Grid) -> Tensor:
        """Add the position embedding and the class token.

        Args:
            patches: Patch tokens (B, N, C).
            grid: Rows and columns of patches; the position embedding is resampled to it.

        Returns:
            (B, N, C), or (B, 1 + N, C) with the class token first if the network has one.
        """
        tokens = patches + self._positions(grid).to(patches.dtype)
        if not self.config.class_token:
            return tokens
        first = (self.cls_token + self.pos_embed[:, :1]).to(patches.dtype)
        return torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)

    def run_block(self, index: int, tokens: Tensor, grid: Grid) -> Tensor:
        """Run block `index` on tokens (B, T, C)."""
        return run_block(self.blocks[index], index, tokens, grid, self.config)

    def _positions(self, grid: Grid) -> Tensor:
        """Position embedding (1, N, C) for a grid; bicubic without antialias, as SimpleClick and DINOv2 resample."""
        side = self.config.position_grid
        stored = self.pos_embed[:, 1:]
        if grid == (side, side):
            return stored
        square = stored.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        resampled = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
        return resampled.flatten(2).transpose(1, 2)


def patch_tokens(tokens: Tensor, config: NetworkConfig) -> Tensor:
    """The tokens of patches, (B, N, C): all but the class token."""
    return tokens[:, 1:] if config.class_token else tokens


def run_block(block: nn.Module, index: int, tokens: Tensor, grid: Grid, config: NetworkConfig) -> Tensor:
    """Run one block, on the whole image or on SimpleClick's windows.

    Every g-th block sees the whole image (g is 6 at depth 12, otherwise a quarter of the depth). The others see
    windows that do not overlap and are about as large as an image of 224 px, as in SimpleClick's models_vit.py.

    Args:
        block: The block.
        index: Its position in the network, from 0.
        tokens: (B, T, C).
        grid: Rows and columns of patches.
        config: Shape of the network.

    Returns:
        (B, T, C).

    Raises:
        ValueError: If the grid cannot be cut into whole windows.
    """
    every = 6 if config.depth == 12 else max(config.depth // 4, 1)
    if not config.windowed or (index + 1) % every == 0:
        return block(tokens)  # type: ignore[no-any-return]
    rows, cols = grid
    window_tokens = 224 // config.patch_px
    down, across = max(rows // window_tokens, 1), max(cols // window_tokens, 1)
    if rows % down or cols % across:
        raise ValueError(f"a grid of {rows} x {cols} tokens cannot be cut into {down} x {across} windows")
    height, width = rows // down, cols // across
    batch, _, dim = tokens.shape
    windows = tokens.reshape(batch, down, height, across, width, dim).permute(0, 1, 3, 2, 4, 5)
    out = block(windows.reshape(-1, height * width, dim))
    out = out.reshape(batch, down, across, height, width, dim).permute(0, 1, 3, 2, 4, 5)
    return out.reshape(batch, rows * cols, dim)  # type: ignore[no-any-return]


def use_plain_attention(module: nn.Module, plain: bool = True) -> None:
    """Switch every attention layer of a module between plain softmax and the fused kernel.

    On a CPU the fused kernel's backward pass is slow: plain attention trains 2.8 times as fast at 257 tokens.
    """
    for layer in module.modules():
        if hasattr(layer, "fused_attn"):
            layer.fused_attn = not plain  # type: ignore[assignment]


def grid_side(tokens: int) -> int:
    """Side of a square grid.

    Args:
        tokens: Number of patches in the grid.

    Raises:
        ValueError: If they do not form a square.
    """
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"{tokens} tokens do not form a square grid")
    return side
