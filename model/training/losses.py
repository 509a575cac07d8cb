"""What training minimises. All functions take logits and targets (B, 1, H, W) and return the mean over the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -1.0


def bce_and_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy plus dice: starts from scratch, where normalised focal loss does not.

    targets: 0 or 1.
    """
    logits = logits.float()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=(1, 2, 3))
    probability = torch.sigmoid(logits)
    overlap = (probability * targets).sum(dim=(1, 2, 3))
    total = probability.sum(dim=(1, 2, 3)) + targets.sum(dim=(1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return (cross_entropy + dice).mean()


def normalised_focal(logits: Tensor, targets: Tensor, alpha: float = 0.5, gamma: float = 2.0) -> Tensor:
    """Normalised focal loss (SimpleClick's NormalizedFocalLossSigmoid; facts: section 3).

    targets: 0, 1, or -1 for pixels that do not count. The normaliser is constant in the gradient.
    """
    logits = logits.float()
    positive = (targets > 0.5).to(logits.dtype)
    valid = targets != IGNORED
    probability = torch.sigmoid(logits)
    weight = torch.where(positive > 0, alpha * positive, (1 - alpha) * (1 - positive))
    hit = torch.where(valid, 1 - (positive - probability).abs(), torch.ones_like(probability))
    beta = (1 - hit) ** gamma
    count = valid.sum(dim=(-2, -1), keepdim=True)
    multiplier = (count / (beta.sum(dim=(-2, -1), keepdim=True) + 1e-12)).detach()
    beta = beta * multiplier
    log = torch.log((hit + 1e-12).clamp(max=1.0))
    loss = -weight * beta * log * valid
    return (loss.sum(dim=(1, 2, 3)) / (count.sum(dim=(1, 2, 3)) + 1e-12)).mean()


LOSSES = {"bce_and_dice": bce_and_dice, "normalised_focal": normalised_focal}
