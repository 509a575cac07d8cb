"""SimpleFPN: four scales from the one scale of a plain vision transformer (SimpleClick; ViTDet)."""

from __future__ import annotations

from torch import Tensor, nn


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(1, channels)


class SimpleFpn(nn.Module):
    """Features (B, C, h, w) at 1/16 to four maps at 1/4, 1/8, 1/16 and 1/32. Tensor names are SimpleClick's."""

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
        return [self.down_4(features), self.down_8(features), self.down_16(features), self.down_32(features)]
