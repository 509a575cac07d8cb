"""The optimiser: learning rate of each parameter, schedule of the rates, average of the weights.

`WeightAverage` is not timm's `ModelEmaV3`: it keeps the trainable tensors only (a copy of the network would hold the
frozen encoder twice), and its dictionary of tensors is what checkpoints, versions and resumed runs share.
"""

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
    """Make Adam (without weight decay) or AdamW over all trainable parameters."""
    groups = parameter_groups(network, config)
    if config.optimiser == "adam":
        return torch.optim.Adam(groups, betas=config.betas)
    return torch.optim.AdamW(groups, betas=config.betas, weight_decay=config.weight_decay)


def parameter_groups(network: RefCut, config: TrainConfig) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate.

    Args:
        network: The network; parameters without `requires_grad` are left out.
        config: Learning rates per kind of parameter. Block l has the rate `rate_blocks * block_decay ** (last - l)`.

    Returns:
        Groups for a torch optimiser, each trainable parameter in exactly one. `base_lr` is the rate before scheduling.
    """
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
        elif name.startswith("reader."):
            rate = config.rate_reader
        elif name.startswith("backbone."):
            rate = config.rate_blocks
        else:
            rate = config.rate_head
        rates.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate, "base_lr": rate} for rate, parameters in sorted(rates.items())]


def scheduled_share(
    step: float, total: int, warmup: int, schedule: Schedule, milestone_steps: Sequence[int] = ()
) -> float:
    """Compute the learning rate at a step, as a share of the base rate.

    Args:
        step: Step of the run, from 0. May be fractional, when a run turns out shorter than planned.
        total: Number of steps of the run.
        warmup: Number of steps over which the share rises linearly.
        schedule: What follows the warm-up.
        milestone_steps: Steps from which on the share is multiplied by `schedule.factor` once more (multistep).

    Returns:
        A share in (0, 1].

    Example:
        >>> [scheduled_share(step, 10, 2, Schedule()) for step in (0, 1, 10)]
        [0.5, 1.0, 0.01]
    """
    if step < warmup:
        return min((step + 1) / warmup, 1.0)
    if schedule.kind == "multistep":
        return float(schedule.factor ** sum(step >= milestone for milestone in milestone_steps))
    progress = (step - warmup) / max(total - warmup, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class WeightAverage:
    """Exponential moving average of the trainable weights.

    It averages over about the last 1 / (1 - decay) steps, and over fewer at the start.

    Attributes:
        decay: Weight of the old average in each update, 0 to 1.
        steps: Number of updates so far.
        values: Averaged tensors by parameter name. A resumed run sets `values` and `steps` from its checkpoint.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> average = WeightAverage(layer, decay=0.0)
        >>> _ = nn.init.ones_(layer.weight)
        >>> average.update(layer)
        >>> average.values["weight"].tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {n: p.detach().clone() for n, p in network.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the weights after a step to the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                self.values[name].lerp_(parameter, 1 - decay)


def computes_bfloat16(device: torch.device) -> bool:
    """Tell whether bfloat16 is fast on a device: GPUs, and processors with instructions for it."""
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device.type == "cuda"


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that contain NaN or infinity.

    Raises:
        TrainingError: If a tensor is not finite; the message names the first one.
    """
    wrong = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise TrainingError(
            f"{len(wrong)} weights are not numbers, such as {wrong[0]}", hint="lower the learning rates"
        )
