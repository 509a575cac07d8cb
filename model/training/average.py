"""The exponential average of the weights: what is evaluated and shipped."""

from __future__ import annotations

import torch
from torch import nn


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
