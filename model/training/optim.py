"""What moves the weights: parameters with their learning rates, Adam or AdamW, and the rate's way through the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import TrainingError
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


class WeightAverage:
    """Average of the trainable weights over about the last 1 / (1 - decay) steps; fewer at the start."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {n: p.detach().clone() for n, p in network.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                self.values[name].lerp_(parameter, 1 - decay)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there: on GPUs, and on processors that have instructions for it."""
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device.type == "cuda"


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises TrainingError for weights that are no numbers."""
    wrong = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise TrainingError(
            f"{len(wrong)} weights are not numbers, such as {wrong[0]}", hint="lower the learning rates"
        )
