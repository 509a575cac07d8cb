"""Clicks and boxes as images (a disk around each click, a filled box), and those images as tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.features import ImageFeatures

DISK_RADIUS_PX = 5.0
ABSENT = -1.0
"""Value of the free rows of a click table."""


def disk_maps(clicks_rc_network: Tensor, height: int, width: int) -> Tensor:
    """Draw clicks as disks (`DistMaps` with `use_disks` in SimpleClick's isegm/model/ops.py).

    Args:
        clicks_rc_network: Click table (B, 2K, 3), float: (row, column, order) in pixels of the network's input. The
            first K rows are positive clicks, the last K negative ones. A row is free if both coordinates are
            negative; a click of which only one coordinate is negative (outside the crop) still counts.
        height: Height of the maps in pixels.
        width: Width of the maps in pixels.

    Returns:
        (B, 2, height, width) float32, 1 inside a disk, positive map first.

    Raises:
        ValueError: If the number of rows is odd.
    """
    batch, slots, _ = clicks_rc_network.shape
    if slots % 2:
        raise ValueError("a click table needs as many negative as positive rows")
    clicks = clicks_rc_network[..., :2].float().reshape(batch * 2, slots // 2, 2)
    present = clicks.amax(dim=-1) >= 0
    rows = torch.arange(height, device=clicks.device, dtype=torch.float32)
    cols = torch.arange(width, device=clicks.device, dtype=torch.float32)
    row_distance = (rows[None, None] - clicks[..., 0:1]).square()
    col_distance = (cols[None, None] - clicks[..., 1:2]).square()
    squared = row_distance[..., :, None] + col_distance[..., None, :]
    hit = (squared <= DISK_RADIUS_PX**2) & present[..., None, None]
    return hit.any(dim=1).reshape(batch, 2, height, width).float()


def box_maps(boxes_network: Tensor, height: int, width: int) -> Tensor:
    """Draw boxes as filled rectangles.

    Args:
        boxes_network: (B, 4), float: first row, first column, last row, last column, inclusive, in pixels of the
            network's input. Parts outside the input are cut off. A box is absent if its last row is negative.
        height: Height of the maps in pixels.
        width: Width of the maps in pixels.

    Returns:
        (B, 1, height, width) float32, 1 inside the box.
    """
    row_min, col_min, row_max, col_max = (side[:, None] for side in boxes_network.float().unbind(dim=1))
    rows = torch.arange(height, device=boxes_network.device, dtype=torch.float32)[None]
    cols = torch.arange(width, device=boxes_network.device, dtype=torch.float32)[None]
    inside_rows = (rows >= row_min) & (rows <= row_max)
    inside_cols = (cols >= col_min) & (cols <= col_max)
    return (inside_rows[:, :, None] & inside_cols[:, None, :])[:, None].float()


def no_clicks(features: ImageFeatures, config: NetworkConfig) -> Tensor:
    """The network's input of clicks, without a click, a box or a previous mask.

    Args:
        features: The image or crop.
        config: Shape of the network.

    Returns:
        Zeros, (B, `click_map_channels`, H, W), on the device of the features.
    """
    sides = [config.patch_px * side for side in features.grid]
    return features.tokens.new_zeros(len(features.tokens), config.click_map_channels, *sides)


class ClickEmbedding(nn.Module):
    """Turns the previous mask, the click disks and the box into an addition to the patch tokens.

    Its tensors are SimpleClick's `patch_embed_coords.proj`.

    Args:
        embed_dim: Width of the tokens.
        patch_px: Side of a patch in pixels.
        channels: Channels of the click maps.
    """

    def __init__(self, embed_dim: int, patch_px: int, channels: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, embed_dim, patch_px, stride=patch_px)

    def forward(self, coords: Tensor) -> Tensor:
        """Maps (B, `channels`, H, W): previous mask, positive disks, negative disks, box; to (B, N, C)."""
        return self.proj(coords).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]
