"""Training losses. Each takes logits and targets (B, 1, H, W) and returns one value per mask.

`LOSSES` maps the names that a training configuration may use (`Stage.loss`) to the functions. `segmentation_loss` applies
one of them to an answer with one or several masks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from model.data.click_sampling import searched_pixels
from model.network.candidates import MEANT, Segmentation

IGNORED = -1.0
"""Target value of pixels that do not count."""


def bce_and_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute binary cross-entropy plus dice.

    Unlike the normalised focal loss, it also trains parts that start from random weights.

    Args:
        logits: Logits (B, 1, H, W).
        targets: 0 or 1 (B, 1, H, W), float. Fractions are allowed.

    Returns:
        The loss of each mask (B,).

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
    return cross_entropy + dice


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
        The loss of each mask (B,).
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
    return loss.sum(dim=(1, 2, 3)) / (count.sum(dim=(1, 2, 3)) + 1e-12)


MaskLoss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, MaskLoss] = {"bce_and_dice": bce_and_dice, "normalised_focal": normalised_focal}

BEST_SHARE = 0.6
"""Weight of the best of several masks, beside the mask that is meant with weight 1."""
EVERY_SHARE = 0.1
"""Weight of the mean over all of them: where the extent is clear, the masks should not differ."""
QUALITY_SHARE = 0.2
"""Weight of the expected IoU's loss. Its gradients stay in the layers that estimate it."""
MASK_THRESHOLD = 0.0
"""Logits above it are in the mask, when its IoU is computed."""


def segmentation_loss(answer: Segmentation, targets: Tensor, mask_loss: MaskLoss) -> Tensor:
    """Compute the loss of an answer.

    With several masks, the mask that is meant always learns the target, and the one that fits best learns it, too:
    nested targets under one click thus become the smaller and the larger mask. The expected IoU learns from the IoU that
    each mask has.

    Args:
        answer: Logits (B, M, H, W), resized to the targets, and quality (B, M).
        targets: 0 or 1 (B, 1, H, W), float.
        mask_loss: A function of `LOSSES`.

    Returns:
        The loss, a scalar.
    """
    batch, masks = answer.logits.shape[:2]
    if answer.quality is None:
        return mask_loss(answer.logits, targets).mean()
    every = mask_loss(answer.logits.flatten(0, 1)[:, None], targets.repeat_interleave(masks, dim=0))
    every = every.reshape(batch, masks)
    loss = every[:, MEANT] + BEST_SHARE * every.amin(dim=1) + EVERY_SHARE * every.mean(dim=1)
    expected = F.binary_cross_entropy_with_logits(answer.quality, mask_ious(answer.logits, targets))
    return loss.mean() + QUALITY_SHARE * expected


@torch.no_grad()
def mask_ious(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of each mask with its target.

    Args:
        logits: (B, M, H, W).
        targets: 0 or 1 (B, 1, H, W), float.

    Returns:
        (B, M) float32, 0 to 1.
    """
    mask, wanted = logits > MASK_THRESHOLD, targets > 0.5
    both = (mask & wanted).sum(dim=(2, 3)).float()
    return both / (mask | wanted).sum(dim=(2, 3)).clamp_min(1)


def pointed_loss(logits: Tensor, targets: Tensor, pieces: Tensor) -> Tensor:
    """Cross-entropy within the piece that the last click points at, so that a small piece counts as much as a large one.

    Args:
        logits: Logits of the mask that is meant (B, 1, H, W), after the click.
        targets: 0 or 1 (B, 1, H, W), float.
        pieces: What `add_next_clicks` returned, as a bool tensor.

    Returns:
        The mean over the samples, a scalar. A sample without a piece counts as 0.
    """
    every = searched_pixels(logits.shape[-1])
    counted = pieces[:, None].to(logits.device).float()
    entropy = F.binary_cross_entropy_with_logits(
        logits[..., every, every].float(), targets[..., every, every], reduction="none"
    )
    areas = counted.sum(dim=(1, 2, 3))
    return ((entropy * counted).sum(dim=(1, 2, 3)) / areas.clamp_min(1)).mean()
