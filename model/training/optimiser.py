"""What moves the weights: parameters with their learning rates, Adam or AdamW, and the rate's way through the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from model.network.refcut import RefCut
from model.training.config import Schedule, TrainConfig


def make_optimiser(network: RefCut, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam (without weight decay) or AdamW over all trainable parameters."""
    groups = parameter_groups(network, config)
    if config.optimiser == "adam":
        return torch.optim.Adam(groups, betas=config.betas)
    return torch.optim.AdamW(groups, betas=config.betas, weight_decay=config.weight_decay)


def parameter_groups(network: RefCut, config: TrainConfig) -> list[dict[str, Any]]:
    """Every trainable parameter exactly once, with its learning rate."""
    rates: dict[float, list[nn.Parameter]] = {}
    last = network.config.depth - 1
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("click_blocks."):
            block = network.config.fusion_block + int(name.split(".")[1])
            rate = config.rate_blocks * config.block_decay ** (last - block)
        elif name.startswith(("rpg.", "patch_embed_coords.", "likeness.")):
            rate = config.rate_prompts
        elif name.startswith("backbone."):
            rate = config.rate_blocks
        else:
            rate = config.rate_head
        rates.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate, "base_lr": rate} for rate, parameters in sorted(rates.items())]


def scheduled_share(
    step: float, total: int, warmup: int, schedule: Schedule, milestone_steps: Sequence[int] = ()
) -> float:
    """Share of the base learning rate at a step of `total`: linear warm-up, then as the schedule says.

    milestone_steps: steps from which on the share is a factor smaller.
    """
    if step < warmup:
        return min((step + 1) / warmup, 1.0)
    if schedule.kind == "multistep":
        return float(schedule.factor ** sum(step >= milestone for milestone in milestone_steps))
    progress = (step - warmup) / max(total - warmup, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
