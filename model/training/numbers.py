"""What training computes with, and what it must never write down."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from model.errors import TrainingError


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
