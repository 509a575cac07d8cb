"""Training losses. Each takes logits and targets (B, 1, H, W) and returns the mean over the batch.

`LOSSES` maps the names that a training configuration may use (`Stage.loss`) to the functions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -1.0
"""Target value of pixels that do not count."""


def bce_and_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute binary cross-entropy plus dice.

    Unlike the normalised focal loss, it also trains parts that start from random weights.

    Args:
        logits: Logits (B, 1, H, W).
        targets: 0 or 1 (B, 1, H, W), float. Fractions are allowed.

    Returns:
        The loss, a scalar.

    Example:
        >>> targets = torch.zeros(1, 1, 4, 4)
        >>> bool(bce_and_dice(targets - 10, targets) < bce_and_dice(targets + 10, targets))
        True
    """
    logits = logits.float()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=(1, 2, 3))
    probability = torch.sigmoid(logits)
    overlap = (probability * targets).sum(dim=(1, 2, 3))
    total = probability.sum(dim=(1, 2, 3)) + targets.sum(dim=(1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return (cross_entropy + dice).mean()


def normalised_focal(logits: Tensor, targets: Tensor, alpha: float = 0.5, gamma: float = 2.0) -> Tensor:
    """Compute SimpleClick's normalised focal loss (`NormalizedFocalLossSigmoid`).

    The weights of an image's pixels are scaled so that they sum to the number of its pixels. No gradient flows through
    that scale.

    Args:
        logits: Logits (B, 1, H, W).
        targets: 0, 1, or `IGNORED` for pixels that do not count (B, 1, H, W), float.
        alpha: Weight of positive pixels; negative pixels weigh 1 - alpha.
        gamma: Focusing exponent: the larger, the less the pixels count that are already right.

    Returns:
        The loss, a scalar.
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
