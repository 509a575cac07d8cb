"""From tokens to logits: a feature pyramid at four scales and an all-MLP head (SegFormer, as in SimpleClick).

tokens -> SimpleFpn -> 1/4, 1/8, 1/16, 1/32 -> MlpHead -> logits at 1/4
pixels -> DetailBranch -----------------------^ (optional: sharpens borders)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvLayer(nn.Module):
    """A 1x1 convolution with the attribute name `conv`, as mmcv's ConvModule names it in released files.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (B, `in_channels`, h, w) to (B, `out_channels`, h, w)."""
        return self.conv(features)  # type: ignore[no-any-return]


class DetailBranch(nn.Module):
    """Border features from the pixels. They depend on the image only, so they are computed once per crop.

    Not in the paper: tokens of 14 px describe an object, but not the exact position of its border.

    Args:
        channels: Channels of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.layers = nn.Sequential(
            nn.Conv2d(3, half, 3, stride=2, padding=1),
            nn.GroupNorm(1, half),
            nn.GELU(),
            nn.Conv2d(half, channels, 3, stride=2, padding=1),
            nn.GroupNorm(1, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Normalised image (B, 3, H, W) to border features (B, `channels`, H/4, W/4)."""
        return self.layers(image)  # type: ignore[no-any-return]


class DetailRefiner(nn.Module):
    """Corrects the fused map with border features. It starts at zero: an untrained one corrects nothing.

    Args:
        detail_channels: Channels of the border features.
        channels: Channels of the fused map.
    """

    def __init__(self, detail_channels: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(detail_channels, channels, 1)
        self.spread = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.mix = nn.Conv2d(channels, channels, 1)
        for parameter in self.mix.parameters():
            nn.init.zeros_(parameter)

    def forward(self, fused: Tensor, detail: Tensor) -> Tensor:
        """Fused map (B, `channels`, h, w) and border features (B, `detail_channels`, H/4, W/4) to the corrected map."""
        size = fused.shape[-2:]
        if detail.shape[-2:] != size:
            detail = F.interpolate(detail, size=size, mode="bilinear", align_corners=False)
        joined = F.gelu(self.spread(fused * torch.sigmoid(self.project(detail)) + self.project(detail)))
        correction: Tensor = self.mix(joined)
        return fused + correction


class MlpHead(nn.Module):
    """Logits from the levels of the pyramid. Its tensor names are SimpleClick's (`head.*`).

    Args:
        in_channels: Channels of each level, the finest first.
        channels: Width of the head.
        detail_channels: Channels of border features; 0 means that there are none.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, detail_channels: int = 0) -> None:
        super().__init__()
        self.convs = nn.ModuleList(ConvLayer(width, channels) for width in in_channels)
        self.fusion_conv = ConvLayer(len(in_channels) * channels, channels)
        self.dropout = nn.Dropout2d(0.1)
        if detail_channels:
            self.refiner = DetailRefiner(detail_channels, channels)
        self.conv_seg = nn.Conv2d(channels, 1, 1)

    def forward(self, levels: Sequence[Tensor], detail: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute logits at the size of the finest level.

        Args:
            levels: Maps (B, C, h, w), the finest first.
            detail: Border features of `DetailBranch`; None without one.

        Returns:
            Logits (B, 1, h, w), and the fused map (B, `channels`, h, w) that they were computed from.
        """
        size = levels[0].shape[-2:]
        # The fusion convolution is 1x1 and so commutes with upsampling: applied per level before it, it gives the same
        # map and runs on up to 64 times fewer pixels.
        weights = self.fusion_conv.conv.weight.chunk(len(levels), dim=1)
        fused: Tensor | None = None
        for level, conv, weight in zip(levels, self.convs, weights, strict=True):
            part = F.conv2d(F.relu(conv(level)), weight)
            if part.shape[-2:] != size:
                part = F.interpolate(part, size=size, mode="bilinear", align_corners=False)
            fused = part if fused is None else fused + part
        assert fused is not None
        bias = self.fusion_conv.conv.bias
        assert bias is not None
        fused = F.relu(fused + bias[None, :, None, None])
        if detail is not None:
            fused = self.refiner(fused, detail)
        fused = self.dropout(fused)
        return self.conv_seg(fused), fused


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(1, channels)


class SimpleFpn(nn.Module):
    """Feature pyramid from a single map. Its tensor names are SimpleClick's (`neck.*`).

    Args:
        in_dim: Width of the tokens.
        out_dims: Channels at 1/4, 1/8, 1/16 and 1/32.
        inner_32: Inner width of the level at 1/32; None takes SimpleClick's.
    """

    def __init__(self, in_dim: int, out_dims: tuple[int, int, int, int], inner_32: int | None = None) -> None:
        super().__init__()
        out_4, out_8, out_16, out_32 = out_dims
        inner_4 = max(2 * out_4, in_dim // 2)
        inner_8 = max(out_8, in_dim // 2)
        inner_32 = inner_32 or max(out_32, 2 * in_dim)
        self.down_4 = nn.Sequential(
            nn.ConvTranspose2d(in_dim, inner_4, 2, stride=2),
            _norm(inner_4),
            nn.GELU(),
            nn.ConvTranspose2d(inner_4, inner_4 // 2, 2, stride=2),
            _norm(inner_4 // 2),
            nn.Conv2d(inner_4 // 2, out_4, 1),
            _norm(out_4),
            nn.GELU(),
        )
        self.down_8 = nn.Sequential(
            nn.ConvTranspose2d(in_dim, inner_8, 2, stride=2),
            _norm(inner_8),
            nn.Conv2d(inner_8, out_8, 1),
            _norm(out_8),
            nn.GELU(),
        )
        self.down_16 = nn.Sequential(nn.Conv2d(in_dim, out_16, 1), _norm(out_16), nn.GELU())
        self.down_32 = nn.Sequential(
            nn.Conv2d(in_dim, inner_32, 2, stride=2),
            _norm(inner_32),
            nn.Conv2d(inner_32, out_32, 1),
            _norm(out_32),
            nn.GELU(),
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        """Features (B, C, h, w) at 1/16 to four maps, at 1/4, 1/8, 1/16 and 1/32."""
        return [self.down_4(features), self.down_8(features), self.down_16(features), self.down_32(features)]
