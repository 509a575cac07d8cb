"""Three masks per answer, smaller, as meant and larger, and the IoU that each can be expected to have.

Not in the paper. A click and a reference do not always settle how far a thing reaches. The three masks are nested by
construction: the smaller one lies inside the one that is meant, and that one inside the larger one. A small network looks
at each of them and says how good it is; it learns from the IoU that the masks have in training.

    fused map, logits -> CandidateMasks -> logits of three masks
    fused map, masks, comparison with the reference -> expected IoU of each
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLER, MEANT, LARGER = range(3)
FIRST_STEP = 1.5
"""How far the logits of the three masks lie apart before training."""
SHAPE_CHANNELS = 8
"""Numbers that describe a candidate beside the features inside it: see `_shape`."""


@dataclass(frozen=True)
class Segmentation:
    """What the network answers to a set of clicks.

    Attributes:
        logits: (B, M, h, w) at a quarter of the network's input. M is 1, or 3: smaller, as meant, larger.
        quality: (B, M) float32, logits of the IoU that each mask can be expected to have. None for one mask.
    """

    logits: Tensor
    quality: Tensor | None = None

    @property
    def meant(self) -> Tensor:
        """Logits (B, 1, h, w) of the mask that is meant."""
        return self.logits if self.logits.shape[1] == 1 else self.logits[:, MEANT : MEANT + 1]

    def with_mirrored(self) -> Segmentation:
        """The average of two answers (batch of 2) of which the second one is for the mirrored image."""
        logits = 0.5 * (self.logits[:1] + self.logits[1:].flip(-1))
        return Segmentation(logits, None if self.quality is None else self.quality.mean(dim=0, keepdim=True))

    def best(self) -> Tensor:
        """Logits (B, 1, h, w) of the mask with the largest expected IoU."""
        if self.quality is None:
            return self.logits
        chosen = self.quality.argmax(dim=1)
        return self.logits[torch.arange(len(chosen), device=chosen.device), chosen][:, None]


class CandidateMasks(nn.Module):
    """Steps from the mask that is meant to a smaller and a larger one, and estimates the IoU of all three.

    Gradients of the estimate stay in this module: it reads features and masks, and does not shape them.

    Args:
        channels: Channels of the fused map of the head.
        evidence_channels: Channels of the comparison with reference and clicks.
        hidden: Width of the layers that estimate the IoU.
    """

    calibration: Tensor

    def __init__(self, channels: int, evidence_channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.steps = nn.Conv2d(channels, 2, 1)
        nn.init.zeros_(self.steps.weight)
        nn.init.constant_(self.steps.bias, math.log(math.expm1(FIRST_STEP)))  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(2 * channels)
        # The name in weight files: tensors are called `candidates.judge.*` there.
        self.judge = nn.Sequential(
            nn.Linear(2 * channels + 2 * evidence_channels + SHAPE_CHANNELS, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, 1),
        )
        # Scale and shift of the expected IoU's logit, fitted on held-out masks.
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def requires_grad_quality(self) -> None:
        """Let the layers that estimate the IoU be trained."""
        self.norm.requires_grad_(True)
        self.judge.requires_grad_(True)

    def forward(
        self, logits: Tensor, fused: Tensor, evidence: Tensor, coords: Tensor, grid: tuple[int, int]
    ) -> Segmentation:
        """Compute the candidates.

        Args:
            logits: Logits (B, 1, h, w) of the mask that is meant.
            fused: The map (B, `channels`, h, w) that they were computed from.
            evidence: How each patch compares with reference and clicks (B, N, `evidence_channels`).
            coords: Click maps (B, 3 or 4, H, W): previous mask, positive disks, negative disks, box.
            grid: Patches down and across; their product is N.

        Returns:
            Logits (B, 3, h, w) and quality (B, 3).
        """
        smaller, larger = F.softplus(self.steps(fused)).chunk(2, dim=1)
        masks = torch.cat([logits - smaller, logits, logits + larger], dim=1)
        return Segmentation(masks, self._quality(masks, fused, evidence, coords, grid))

    def _quality(
        self, masks: Tensor, fused: Tensor, evidence: Tensor, coords: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        with torch.autocast(masks.device.type, enabled=False):
            probability = torch.sigmoid(masks.detach().float())
            fused, evidence = fused.detach().float(), evidence.detach().float()
            # The ring is what the larger mask adds to the smaller one: the part of the image that is in doubt.
            ring = probability[:, LARGER:] - probability[:, : SMALLER + 1]
            areas = torch.cat([probability, ring], dim=1)
            inside = _means(areas.flatten(2), fused.flatten(2).transpose(1, 2))
            on_patches = F.adaptive_avg_pool2d(areas, grid)
            compared = _means(on_patches.flatten(2), evidence)
            content = torch.cat([inside[:, :3], inside[:, 3:].expand(-1, 3, -1)], dim=-1)
            comparison = torch.cat([compared[:, :3], compared[:, 3:].expand(-1, 3, -1)], dim=-1)
            described = torch.cat([self.norm(content), comparison, _shape(probability, coords)], dim=-1)
            quality: Tensor = self.judge(described)[..., 0] * self.calibration[0] + self.calibration[1]
            return quality


def _means(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted means of values (B, P, C) under weights (B, M, P), 0 or larger: (B, M, C)."""
    return (weights @ values) / weights.sum(dim=-1, keepdim=True).clamp_min(1e-4)


def _shape(probability: Tensor, coords: Tensor) -> Tensor:
    """Numbers that describe each mask, (B, 3, `SHAPE_CHANNELS`).

    They are the root of its area, the IoU with its own thresholded form that its probabilities suggest, how much of its
    area is in doubt, which of the three it is, the IoU with the previous mask, and whether there is a previous mask.
    """
    certain = (probability > 0.5).float()
    area = probability.sum(dim=(2, 3))
    sure = certain.sum(dim=(2, 3))
    overlap = (probability * certain).sum(dim=(2, 3))
    suggested = overlap / (area + sure - overlap).clamp_min(1e-4)
    doubt = (probability * (1 - probability)).sum(dim=(2, 3)) / area.clamp_min(1e-4)
    previous = F.adaptive_avg_pool2d(coords[:, :1].float(), (probability.shape[-2], probability.shape[-1]))
    common = torch.minimum(previous, probability).sum(dim=(2, 3))
    same = common / torch.maximum(previous, probability).sum(dim=(2, 3)).clamp_min(1e-4)
    given = (previous.amax(dim=(2, 3)) > 0).float().expand_as(same)
    which = torch.eye(3, device=area.device).expand(len(area), 3, 3)
    root = (area / (probability.shape[-1] * probability.shape[-2])).sqrt()
    return torch.cat([torch.stack([root, suggested, doubt, same, given], dim=-1), which], dim=-1)
