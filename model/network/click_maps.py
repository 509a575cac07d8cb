"""Clicks as pictures (disks round each click, one map for positive and one for negative ones), and those as tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DISK_RADIUS_PX = 5.0
ABSENT = -1.0
"""What free rows of a click table hold."""


def disk_maps(clicks_rc_network: Tensor, height: int, width: int) -> Tensor:
    """Disk maps of clicks (SimpleClick's `DistMaps` with `use_disks`; facts: section 1.2, step 3).

    clicks_rc_network: (B, 2K, 3) float, (row, column, order) in pixels of the network's input; the first K are
        positive, the last K negative. A click is absent when max(row, column) < 0; a zoomed click of which only one
        coordinate is negative stays.
    Returns (B, 2, height, width) float32, 1 inside a disk: positive map first.
    """
    batch, slots, _ = clicks_rc_network.shape
    if slots % 2:
        raise ValueError("clicks need as many negative as positive slots")
    clicks = clicks_rc_network[..., :2].float().reshape(batch * 2, slots // 2, 2)
    present = clicks.amax(dim=-1) >= 0
    rows = torch.arange(height, device=clicks.device, dtype=torch.float32)
    cols = torch.arange(width, device=clicks.device, dtype=torch.float32)
    row_distance = (rows[None, None] - clicks[..., 0:1]).square()
    col_distance = (cols[None, None] - clicks[..., 1:2]).square()
    squared = row_distance[..., :, None] + col_distance[..., None, :]
    hit = (squared <= DISK_RADIUS_PX**2) & present[..., None, None]
    return hit.any(dim=1).reshape(batch, 2, height, width).float()


class ClickEmbedding(nn.Module):
    """Previous mask, positive and negative disks (B, 3, H, W) to what they add to the patch tokens, (B, N, C).

    The tensors are SimpleClick's `patch_embed_coords.proj`.
    """

    def __init__(self, embed_dim: int, patch_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, patch_px, stride=patch_px)

    def forward(self, coords: Tensor) -> Tensor:
        return self.proj(coords).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]
